package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/delivery/pipe"
	"github.com/lmtpd/lmtpd/delivery/relay"
	"github.com/lmtpd/lmtpd/protocol"
)

// buildTransports makes what the [[transport]] tables say.
func (c *config) buildTransports(log *slog.Logger) (delivery.Transports, error) {
	t := delivery.Transports{Named: map[string]delivery.Transport{}, Default: c.Delivery.Transport, Domains: map[string]string{}}
	var errs configErrors
	for i := range c.Transport {
		tc := &c.Transport[i]
		built, err := c.buildTransport(i, log)
		if err != nil {
			errs = append(errs, err...)
			continue
		}
		// One that has not changed goes on: its places are counted once, whoever takes
		// them, and it knows which servers are down and what they may have.
		if old, ok := c.former[tc.Name]; ok && sameSettings(old, built) {
			built = old
		}
		t.Named[tc.Name] = built
		for _, d := range tc.Domains {
			t.Domains[d] = tc.Name
		}
		if tc.Type == transportRelay && len(tc.Hosts) == 0 && t.Hosts == "" {
			t.Hosts = tc.Name
		}
	}
	if len(errs) > 0 {
		return t, errs
	}
	t.Self = c.isSelf(log)
	return t, nil
}

// sameSettings compares the exported fields of two transports, pointers to structs.
func sameSettings(one, other any) bool {
	a, b := reflect.ValueOf(one), reflect.ValueOf(other)
	if a.Type() != b.Type() || a.Kind() != reflect.Pointer || a.IsNil() || b.IsNil() {
		return false
	}
	for i, f := range reflect.VisibleFields(a.Type().Elem()) {
		if !f.IsExported() {
			continue
		}
		x, y := a.Elem().Field(i).Interface(), b.Elem().Field(i).Interface()
		same := reflect.DeepEqual(x, y)
		switch x := x.(type) {
		case *command.Runner:
			same = sameSettings(x, y)
		case *tls.Config: // it has nothing but certificates
			y := y.(*tls.Config)
			same = x == y || x != nil && y != nil && x.RootCAs.Equal(y.RootCAs)
		}
		if !same {
			return false
		}
	}
	return true
}

func (c *config) buildTransport(i int, log *slog.Logger) (delivery.Transport, configErrors) {
	tc := &c.Transport[i]
	key := func(name string) string { return fmt.Sprintf("transport[%d].%s", i, name) }
	switch tc.Type {
	case transportRelay:
		r := &relay.Relay{
			Port: tc.Port, Hello: c.Hostname, TLS: relay.Security(slices.Index(tlsModes, tc.TLS)),
			Connections: tc.Parallel, Idle: time.Duration(tc.IdleTimeout), Timeout: time.Duration(tc.Timeout),
			OwnPorts: c.ownPorts(), Log: log,
		}
		if tc.Protocol == protoLMTP {
			r.Mode = protocol.LMTP
		}
		for _, text := range tc.Hosts {
			a, err := parseSocketAddress(text)
			if err != nil {
				return nil, configErrors{c.doc.fault(c.doc.line(key("hosts")), key("hosts"), err.Error(), "see lmtpd.toml(5)")}
			}
			r.Hosts = append(r.Hosts, relay.Host{Network: a.Network, Addr: a.Address})
		}
		if tc.CAFile != "" {
			pool, err := readCAFile(tc.CAFile)
			if err != nil {
				return nil, configErrors{c.doc.fault(c.doc.line(key("ca_file")), key("ca_file"), tc.CAFile+": "+plainError(err), "name a file with certificates in PEM that this user can read")}
			}
			r.TLSConfig = &tls.Config{RootCAs: pool}
		}
		return r, nil
	case transportPipe:
		shared, err := c.runner()
		var errs configErrors
		if errors.As(err, &errs) {
			return nil, errs
		}
		r := &command.Runner{Account: shared.Account, Timeout: time.Duration(tc.Timeout), Parallel: tc.Parallel}
		return &pipe.Pipe{Command: tc.Command, Runner: r, Log: log}, nil
	case transportDebug:
		d := &delivery.Debug{Log: log, Target: "log", Timeout: debugPatience}
		if tc.Path != "" {
			d.Target, d.To = tc.Path, openDebug(tc.Path)
		}
		return d, nil
	}
	return delivery.Discard{}, nil
}

// maxCAFile bounds how much is read of a file with certificates, in octets.
const maxCAFile = 16 << 20

func readCAFile(path string) (*x509.CertPool, error) {
	text, err := readSmallFile(path, maxCAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("has no certificate in it")
	}
	return pool, nil
}

// openDebug opens what a debug transport writes to, for each message anew: a file that
// was moved away by logrotate is made again. A FIFO that nobody reads must not hold up mail
// for ever.
func openDebug(path string) func() (io.WriteCloser, error) {
	return func() (io.WriteCloser, error) {
		if path == "-" {
			return keptOpen{os.Stdout}, nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		_ = f.SetWriteDeadline(time.Now().Add(debugPatience)) // plain files have none
		return f, nil
	}
}

// debugPatience is how long one message may wait for whoever reads a FIFO or standard output.
const debugPatience = 10 * time.Second

type keptOpen struct{ io.Writer }

func (keptOpen) Close() error { return nil }

// ownPorts are the TCP ports that the daemon listens on.
func (c *config) ownPorts() []int {
	ports := slices.Clone(c.inheritedPorts)
	for _, l := range c.Listen {
		if p := l.Address.port(); p != 0 {
			ports = append(ports, p)
		}
	}
	return ports
}

// isSelf says whether a host of a user record is this machine: its name, unless that
// has a port which is somebody else's here; or one of its addresses with a port that
// lmtpd listens on.
func (c *config) isSelf(log *slog.Logger) func(host, port string) bool {
	names := []string{c.Hostname, machineName()}
	// Asked for when a record names an address: most sites have none.
	own := sync.OnceValue(func() (own []net.IP) {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			log.Warn("addresses of this machine are not known: hosts in user records are compared by name only", "error", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				own = append(own, n.IP)
			}
		}
		return own
	})
	ports := c.ownPorts()
	def := c.recordPort()
	return func(host, port string) bool {
		n := def
		if port != "" {
			n, _ = strconv.Atoi(port)
		}
		if ip := net.ParseIP(host); ip != nil {
			return slices.Contains(ports, n) && slices.ContainsFunc(own(), ip.Equal)
		}
		host = strings.TrimSuffix(host, ".")
		named := slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, host) && name != "localhost" })
		return named && (n == def || slices.Contains(ports, n))
	}
}

// recordPort is the port of a host in a user record which has none.
func (c *config) recordPort() int {
	for _, t := range c.Transport {
		if t.Type == transportRelay && len(t.Hosts) == 0 {
			return t.Port
		}
	}
	return 24
}

// describeTransport is for people: "relay over lmtp to tcp:10.0.0.1:24".
func (c *config) describeTransport(name, host string) string {
	for _, t := range c.Transport {
		if t.Name != name {
			continue
		}
		switch t.Type {
		case transportRelay:
			var hosts []string
			for _, h := range t.Hosts {
				a, _ := parseSocketAddress(h) // it has been checked
				hosts = append(hosts, a.String())
			}
			to := strings.Join(hosts, ", ")
			if host != "" {
				if _, _, err := net.SplitHostPort(host); err != nil {
					host = net.JoinHostPort(host, strconv.Itoa(t.Port))
				}
				to = "tcp:" + host + ", which the user's record names"
			}
			if to == "" {
				to = "nowhere: neither it nor the user's record names a host"
			}
			return fmt.Sprintf("relay over %s to %s; TLS: %s", t.Protocol, to, t.TLS)
		case transportPipe:
			return "pipe to " + strings.Join(quotedAll(t.Command), " ")
		case transportDebug:
			return "debug: shown in " + map[bool]string{true: "the log", false: t.Path}[t.Path == ""]
		}
		return "discard: taken and thrown away"
	}
	return name
}

// transportReply is the reply of a delivery by a transport; known is what it is where
// nobody else has a say.
func (c *config) transportReply(name, known string) string {
	for _, t := range c.Transport {
		switch {
		case t.Name == name && t.Type == transportRelay:
			return "what the next server says; 451 4.4.1 if none can be reached"
		case t.Name == name && t.Type == transportPipe:
			return "by the program's exit status"
		}
	}
	return known
}
