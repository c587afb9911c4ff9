package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/delivery/writer"
)

func writerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "writer",
		Short: "run the process that writes the mail of system users",
		Long: "Run the second process that writer.socket in the configuration speaks of, in the\nforeground, on the socket named \"writer\" that systemd passes or else on writer.socket.\n" +
			"It takes messages from \"lmtpd serve\" and writes each one as the owner of its mailbox,\nso that the process that talks to the network need not be able to. It wants the\n" +
			"capabilities CAP_SETUID and CAP_SETGID and gives up all others. SIGHUP, SIGTERM and\nSIGINT mean what they mean to \"lmtpd serve\".",
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runDaemon(*path, (*daemon).setUpWriter)
	}
	return cmd
}

// listen is the writer's own socket as openSocket wants it: the front may connect,
// and nobody else.
func (w writerConfig) listen() listenConfig {
	return listenConfig{Name: "writer", Protocol: protoWriter, Address: w.Socket.socketAddress, Mode: 0o600, Owner: w.FrontUser}
}

// setUpWriter makes d the writer process.
func (d *daemon) setUpWriter(c *config) error {
	d.load = d.startWriter
	if err := d.startWriter(c); err != nil {
		return err
	}
	d.confineWriter(c.forWriter())
	return nil
}

// forWriter is what of a configuration concerns the writer process. Texts, certificates
// and programs are the front's, and need not be there for another account.
func (c *config) forWriter() *config {
	own := *c
	own.QuotaWarning, own.Transport = nil, nil
	for _, t := range c.Transport {
		own.Transport = append(own.Transport, transportConfig{Name: t.Name, Domains: t.Domains, Type: transportDiscard})
	}
	return &own
}

// usersBehind is how long a user may be known to the front and not to the writer: a user
// file is read when it has rested for a second, but by a process that starts or reloads.
const usersBehind = 2 * time.Second

// startWriter is start for the writer process.
func (d *daemon) startWriter(c *config) error {
	c = c.forWriter()
	front, err := lookupID("user", c.Writer.FrontUser)
	if err != nil {
		return c.faultAt("writer.front_user", err)
	}
	agent, err := buildAgent(c, d.log)
	if err != nil {
		return err
	}
	// The front alone knows which hosts of user records are this machine, having its
	// addresses and ports; what comes here is for a mailbox.
	agent.Transports.Self = func(string, string) bool { return true }
	srv := &writer.Server{
		Writer: agent.Writer, FrontUID: uint32(front), Authorize: agent.Authorize, Behind: usersBehind, Log: d.log,
		Report: func(r maildir.Result) {
			if r.Err != nil {
				d.counts.deferred.Add(1)
				return
			}
			d.counts.delivered.Add(1)
		},
	}
	own := *c
	own.Listen = []listenConfig{c.Writer.listen()}
	own.Limits.IdleExit = 0 // the front keeps connections
	if c.Writer.Socket.Network != "" && c.Writer.FrontUser != "" && front == os.Geteuid() {
		own.Listen[0].Owner = "" // as it comes: giving it to oneself may be forbidden
	}
	if err := d.replace(&own, func() error { return nil }, func(listenProto) server { return srv }); err != nil {
		return atWriterSocket(c, err)
	}
	// The front keeps connections: it shall make new ones, to the new server.
	for _, s := range d.old {
		go s.shutdown(context.Background())
	}
	return nil
}

// writerOf is the front's end of the way to the writer process, nil if this process
// writes the mail itself.
func (d *daemon) writerOf(c *config) *writer.Client {
	at := c.Writer.Socket.Address
	switch {
	case at == "":
		if os.Geteuid() == 0 && slices.ContainsFunc(c.Userdb, func(u userdbConfig) bool { return u.Type == userdbSystem }) {
			d.log.Warn("the process that talks to the network has the rights of root, to write the mail of system users",
				"remedy", `run "lmtpd writer" beside it (lmtpd-writer.socket), set writer.socket, and start "lmtpd serve" as an account without rights`)
		}
		return nil
	case d.client != nil && d.client.Address == at:
		return d.client
	}
	client := &writer.Client{Address: at}
	if d.observer != nil {
		client.Counts = &d.observer.writer.counts
	}
	return client
}

// useWriter lets go of the connections to another writer's socket.
func (d *daemon) useWriter(client *writer.Client) {
	if d.client != nil && d.client != client {
		d.client.Close()
	}
	d.client = client
	if d.observer != nil {
		d.observer.writer.use(client)
	}
}

// faultAt is an error of one key, which err explains.
func (c *config) faultAt(key string, err error) error {
	f := &valueError{problem: err.Error()}
	errors.As(err, &f)
	return configErrors{c.doc.fault(c.doc.line(key), key, f.problem, f.remedy)}
}

// atWriterSocket gives faults of the [[listen]] that stands for the writer's socket
// their real key.
func atWriterSocket(c *config, err error) error {
	var faults configErrors
	if !errors.As(err, &faults) {
		return err
	}
	for _, f := range faults {
		if strings.HasPrefix(f.Key, "listen") {
			f.Key, f.Line = "writer.socket", c.doc.line("writer.socket")
		}
		if c.Writer.Socket.Network == "" {
			f.Remedy = `let systemd pass a socket with FileDescriptorName=writer and ListenSequentialPacket=, or write socket = "unix:/run/lmtpd/writer.sock"`
		}
	}
	return faults
}
