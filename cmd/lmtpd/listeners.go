package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strings"
)

// listeners holds the sockets that lmtpd serves, across reloads of the configuration.
//
// The sequence, at start as at each reload:
//
//	change, err := l.prepare(cfg)     // opens what is new; on an error nothing has changed
//	serve each of change.bound()      // the new generation of servers
//	change.commit()                   // closes what the configuration no longer names
//	shut the servers of the old generation down
//
// and at the end l.close(), then the shutdown of the servers: a connection that has
// been accepted always reaches a server, and what has not been accepted waits in the
// kernel for the next process that systemd hands the socket to.
//
// The methods are not safe for concurrent use; the net.Listeners that come out are.
type listeners struct {
	log       *slog.Logger
	inherited []*socket
	own       []*socket
}

// newListeners starts with the sockets that systemd passed (see inheritSockets).
func newListeners(inherited []inheritedSocket, log *slog.Logger) *listeners {
	l := &listeners{log: log}
	for _, in := range inherited {
		l.inherited = append(l.inherited, newSocket(in.name, listenConfig{}, in.listener))
	}
	return l
}

// ports are the TCP ports of the sockets that systemd has passed.
func (l *listeners) ports() (list []int) {
	for _, s := range l.inherited {
		if a, ok := s.listener.Addr().(*net.TCPAddr); ok {
			list = append(list, a.Port)
		}
	}
	return list
}

// boundListener is one socket for one generation of servers. Closing the Listener ends
// its Accept and leaves the socket to the next generation.
type boundListener struct {
	Name     string
	Protocol listenProto
	Address  string // "unix:/path" or "tcp:HOST:PORT" as the kernel has it
	Systemd  bool   // passed by systemd
	Listener net.Listener
}

// listenerChange is the step from one configuration to the next: call bound, and then
// exactly one of commit and abort.
type listenerChange struct {
	l        *listeners
	next     []*socket // own sockets of the new configuration
	opened   []*socket // those of them that are new
	restores []func()  // put back owner and mode of those kept
	bounds   []boundListener
}

// prepare opens the sockets that c names and that are not open yet. The error is a
// configErrors; sockets that were open stay as they are.
func (l *listeners) prepare(c *config) (*listenerChange, error) {
	change := &listenerChange{l: l}
	var errs configErrors
	fail := func(key string, err error) {
		f := &valueError{problem: fmt.Sprint(err)}
		errors.As(err, &f)
		errs = append(errs, c.doc.fault(c.doc.line(key), key, f.problem, f.remedy))
	}
	if len(c.Listen) == 0 && len(l.inherited) == 0 {
		fail("listen", &valueError{"there is no socket to serve", `add a [[listen]] with address = "unix:/run/lmtpd/lmtp.sock", or start lmtpd by lmtpd.socket`})
	}
	for _, s := range l.inherited {
		protocol, key := inheritedProtocol(s.name), "listen"
		if i := slices.IndexFunc(c.Listen, func(lc listenConfig) bool { return lc.Name == s.name }); i >= 0 {
			protocol, key = c.Listen[i].Protocol, fmt.Sprintf("listen[%d].name", i)
		}
		if a, ok := s.listener.Addr().(*net.TCPAddr); ok && a.Port == 25 && protocol == protoLMTP {
			fail(key, &valueError{"systemd passes TCP port 25 as " + quoted(s.name) + " for LMTP", `use another port, such as 24, or protocol = "smtp": RFC 2033 section 5 keeps port 25 for SMTP`})
			continue
		}
		if packets := s.listener.Addr().Network() == "unixpacket"; packets != (protocol == protoWriter) {
			fail(key, wrongSocketType(s.name, packets))
			continue
		}
		change.bind(s, s.name, protocol)
	}
	for i, lc := range c.Listen {
		key := fmt.Sprintf("listen[%d].address", i)
		if slices.ContainsFunc(l.inherited, func(s *socket) bool { return s.name == lc.Name }) {
			if lc.Address.Network != "" {
				l.log.Info("socket from systemd is served instead of the configured address", "listen", lc.Name, "address", lc.Address.String())
			}
			continue
		}
		if lc.Address.Network == "" {
			fail(key, &valueError{"systemd passed no socket named " + quoted(lc.Name), "add an address, or FileDescriptorName=" + lc.Name + " to the socket unit"})
			continue
		}
		s, err := change.open(lc)
		if err != nil {
			fail(key, err)
			continue
		}
		change.next = append(change.next, s)
		change.bind(s, lc.Name, lc.Protocol)
	}
	if len(errs) > 0 {
		change.abort()
		errs.sort()
		return nil, errs
	}
	return change, nil
}

// wrongSocketType: front and writer speak in packets, everybody else in streams.
func wrongSocketType(name string, packets bool) error {
	if packets {
		return &valueError{"systemd passes " + quoted(name) + " as a socket of packets", `pass it to "lmtpd writer", or write ListenStream= in the socket unit`}
	}
	return &valueError{"systemd passes " + quoted(name) + " as a stream socket", "write ListenSequentialPacket= in the socket unit"}
}

// open returns the open socket for lc if there is one, made to fit, or else a new one.
func (c *listenerChange) open(lc listenConfig) (*socket, error) {
	for _, s := range c.l.own {
		if s.config.Address != lc.Address || !s.inPlace() {
			continue
		}
		old := s.config
		if old.Mode != lc.Mode || old.Owner != lc.Owner || old.Group != lc.Group {
			if err := s.setAccess(lc); err != nil {
				return nil, err
			}
			c.restores = append(c.restores, func() { _ = s.setAccess(old) })
		}
		return s, nil
	}
	s, err := openSocket(lc)
	if err == nil {
		c.opened = append(c.opened, s)
	}
	return s, err
}

func (c *listenerChange) bind(s *socket, name string, protocol listenProto) {
	c.bounds = append(c.bounds, boundListener{
		Name: name, Protocol: protocol, Address: s.address(), Systemd: s.config.Address.Network == "",
		Listener: newGeneration(s),
	})
}

// bound are the listeners of the new generation, those of systemd first.
func (c *listenerChange) bound() []boundListener { return c.bounds }

// commit closes the sockets that the new configuration does not name.
func (c *listenerChange) commit() {
	for _, s := range c.l.own {
		if !slices.Contains(c.next, s) {
			c.l.log.Info("no longer listening", "address", s.address())
			c.l.closeSocket(s)
		}
	}
	c.l.own = c.next
}

// abort closes what prepare has opened and puts back what it has changed.
func (c *listenerChange) abort() {
	for _, b := range c.bounds {
		b.Listener.Close()
	}
	for _, s := range c.opened {
		c.l.closeSocket(s)
	}
	for _, restore := range c.restores {
		restore()
	}
}

// close closes all sockets, and removes our own from the file system. Accept of a
// current generation then waits for the end of that generation.
func (l *listeners) close() {
	for _, s := range append(l.own, l.inherited...) {
		l.closeSocket(s)
	}
	l.own, l.inherited = nil, nil
}

func (l *listeners) closeSocket(s *socket) {
	if err := s.close(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.log.Warn("closing a socket", "address", s.address(), "error", err)
	}
}

// inheritedProtocol is what a socket from systemd speaks that no [[listen]] names.
func inheritedProtocol(name string) listenProto {
	if strings.HasPrefix(name, "smtp") {
		return protoSMTP
	}
	return protoLMTP
}
