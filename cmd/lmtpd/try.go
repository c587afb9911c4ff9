package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/userdb"
)

// defaultTrySMTP is where `lmtpd try` listens for SMTP unless told otherwise.
const defaultTrySMTP = "127.0.0.1:2525"

func tryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "try",
		Short: "run without configuration: every address gets a mailbox",
		Long: "Run a server to look at, without configuration, root or preparation: LMTP on\nDIR/lmtp.sock, SMTP on 127.0.0.1:2525. Every address gets a Maildir,\n" +
			"DIR/mail/<domain>/<user>, and each delivery prints a line. Messages are kept when it ends.\n" +
			"With --handler, messages go elsewhere.",
		Args: cobra.NoArgs,
	}
	var o tryOptions
	o.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		defer signal.Stop(signals)
		o.smtpAnyPort = !cmd.Flags().Changed("smtp")
		t := &trial{
			out: &lockedWriter{w: cmd.OutOrStdout()}, err: &lockedWriter{w: cmd.ErrOrStderr()},
			log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError})),
		}
		if err := t.start(&o); err != nil {
			return err
		}
		return t.wait(signals)
	}
	return cmd
}

// trial is `lmtpd try` while it runs.
type trial struct {
	out, err *lockedWriter
	log      *slog.Logger
	d        daemon
}

// lockedWriter lets sessions write side by side.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// start sets everything up and tells the user about it.
func (t *trial) start(o *tryOptions) error {
	service, err := o.service(t.out, t.err)
	if err != nil {
		return &exitError{exitUsage, err.Error()}
	}
	dir, err := tryDirectory(o.dir)
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	c := tryConfig(dir)
	if service.maildir != "" {
		c.Mailbox.Path = strings.ReplaceAll(service.maildir, "%", "%%")
	}
	if service.size != nil {
		c.Limits.MessageSize = *service.size
	}
	if c.Listen, err = o.listen(dir); err != nil {
		return &exitError{exitUsage, err.Error()}
	}
	t.d = daemon{log: t.log, listeners: newListeners(nil, t.log), notify: &notifier{log: t.log}}
	agent, err := buildAgent(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	agent.Users = userdb.Any{}
	agent.Report = t.report
	t.d.agents.current.Store(agent)
	err = t.d.replace(c, func() error { return nil }, func(p listenProto) server {
		return service.adapt(buildServer(c, p, &t.d.agents, t.log), p)
	})
	if err != nil {
		t.d.listeners.close()
		return &exitError{exitConfig, o.explain(err).Error()}
	}
	t.greet(dir, service)
	t.d.notify.ready("trying in " + dir)
	return nil
}

// tryConfig is what `lmtpd try` serves, with the defaults of an empty file.
func tryConfig(dir string) *config {
	c, err := parseConfig("(built in)", nil)
	if err != nil {
		panic(err) // an empty file is always right
	}
	c.StateDirectory = dir
	c.Mailbox.Path = filepath.Join(strings.ReplaceAll(dir, "%", "%%"), "mail", "%d", "%n")
	return c
}

// tryDirectory makes the directory. Where none was named and the current one is
// no place for it, a new temporary directory serves.
func tryDirectory(dir string) (string, error) {
	named := dir != ""
	if !named {
		dir = "lmtpd-try"
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = makeTryDirectory(dir)
	}
	if err != nil && !named {
		if dir, err = os.MkdirTemp("", "lmtpd-try-"); err == nil {
			err = makeTryDirectory(dir)
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w; name a directory that can be written with --dir DIR", err)
	}
	return dir, nil
}

func makeTryDirectory(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o700); err != nil {
		return err
	}
	if _, err := parseSocketAddress(filepath.Join(dir, "lmtp.sock")); err != nil {
		return err
	}
	return checkWritable(dir, "the socket and the mail")
}

// explain puts the flags in the place of keys, for there is no file to look into.
func (o *tryOptions) explain(err error) error {
	var faults configErrors
	if !errors.As(err, &faults) {
		return err
	}
	instead := "name another address with --lmtp"
	if o.lmtp == defaultLMTP {
		instead = "name another directory with --dir DIR"
	}
	for _, f := range faults {
		f.File, f.Key = "", ""
		f.Remedy = strings.Replace(f.Remedy, "use another address", instead, 1)
	}
	return faults
}

// listen are the sockets that the options name.
func (o *tryOptions) listen(dir string) (list []listenConfig, err error) {
	lmtp := o.lmtp
	if lmtp == defaultLMTP {
		lmtp = filepath.Join(dir, "lmtp.sock")
	}
	for _, l := range []struct {
		protocol listenProto
		address  string
		anyPort  bool
	}{{protoLMTP, lmtp, false}, {protoSMTP, o.smtp, o.smtpAnyPort}, {protoSMTPS, o.smtps, false}} {
		if l.address == "" {
			continue
		}
		addr, err := tryAddress(string(l.protocol), l.address, l.anyPort)
		if err != nil {
			return nil, err
		}
		list = append(list, listenConfig{Name: string(l.protocol), Protocol: l.protocol, Mode: 0o600, Address: addr})
	}
	if len(list) == 0 {
		return nil, errors.New("there is nothing to listen on: leave one of --lmtp, --smtp and --smtps")
	}
	return list, nil
}

// tryAddress is the address to listen on: a path, if there is a slash in it, or HOST:PORT.
// One that was not asked for by name, and is taken, is exchanged for a free port.
func tryAddress(flag, address string, anyPort bool) (socketAddress, error) {
	path := strings.TrimPrefix(address, "unix:")
	if !strings.Contains(path, "/") {
		return freeAddress(flag, address, anyPort)
	}
	if !filepath.IsAbs(path) {
		cwd, err := os.Getwd()
		if err != nil {
			return socketAddress{}, fmt.Errorf("--%s: %w", flag, err)
		}
		path = cwd + "/" + path
	}
	addr, err := parseSocketAddress(path)
	if err != nil {
		return addr, fmt.Errorf("--%s: %w", flag, err)
	}
	return addr, nil
}

func freeAddress(flag, hostPort string, anyPort bool) (socketAddress, error) {
	addr, err := parseSocketAddress("tcp:" + hostPort)
	if err != nil {
		return addr, fmt.Errorf("--%s: %w", flag, err)
	}
	l, err := net.Listen(addr.Network, addr.Address)
	if errors.Is(err, syscall.EADDRINUSE) && anyPort {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return addr, fmt.Errorf("--%s %s: %w; name another port, or leave it out with --%s \"\"", flag, hostPort, errnoOf(err), flag)
	}
	defer l.Close()
	return socketAddress{Network: "tcp", Address: l.Addr().String()}, nil
}

func (t *trial) greet(dir string, service *tryService) {
	var g strings.Builder
	fmt.Fprintf(&g, "lmtpd is listening; %s. Ctrl-C ends it.\n\n", service.greeting)
	sock := ""
	for _, b := range t.d.current.bounds {
		addr := strings.TrimPrefix(strings.TrimPrefix(b.Address, "unix:"), "tcp:")
		fmt.Fprintf(&g, "  %-5s %s\n", strings.ToUpper(string(b.Protocol)), addr)
		if b.Protocol == protoLMTP {
			sock = strings.TrimPrefix(b.Address, "unix:")
		}
	}
	if service.delivers && service.maildir == "" {
		fmt.Fprintf(&g, "  %-5s %s/mail/<domain>/<user>\n", "mail", dir)
	}
	g.WriteByte('\n')
	if sock != "" {
		fmt.Fprintf(&g, "Send a message from another terminal:\n\n  printf 'Subject: hello\\n\\nIt works.\\n' | %s send --to %s -f ann@example.org bob@example.org\n\n", ownCommand(), shellWord(sock))
	}
	io.WriteString(t.out, g.String())
}

// ownCommand is how the user would call this program again.
func ownCommand() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "/go-build") {
		return "go run ./cmd/lmtpd"
	}
	return shellWord(os.Args[0])
}

// shellWord quotes s for a POSIX shell where it has to be.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// report prints one line for each recipient.
func (t *trial) report(o delivery.Outcome) {
	t.d.counts.add(o)
	if o.Reply.OK() {
		fmt.Fprintf(t.out, "%-9s  %s  from <%s>  %d octets  %s\n", o.Status(), o.To, o.From, o.Size, o.File)
		return
	}
	fmt.Fprintf(t.out, "%-9s  %s  from <%s>  %s  (%v)\n", o.Status(), o.To, o.From, o.Reply.Error(), o.Err)
}

// wait serves until a signal, and drains.
func (t *trial) wait(signals <-chan os.Signal) error {
	select {
	case sig := <-signals:
		fmt.Fprintln(t.out, "\nEnding: transactions in progress are finished, idle sessions are told to go. Again to end at once.")
		return t.d.drain(sig, signals)
	case err := <-t.d.current.failed:
		t.d.current.shutdown(context.Background())
		return &exitError{exitTemporary, err.Error()}
	}
}
