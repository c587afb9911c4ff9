package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"
)

// netListener is what *net.UnixListener and *net.TCPListener have in common.
type netListener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// socket is one open socket. Those from systemd have a name and no config.
type socket struct {
	name     string
	config   listenConfig
	listener netListener
	file     fs.FileInfo // of our own Unix socket, to know it again

	accepting chan struct{} // has room for the one generation that waits in Accept

	mu          sync.Mutex // guards the fields below and the deadline of listener
	generations int        // that are not closed
	kept        []net.Conn // accepted for a generation that had ended
	closed      bool
}

func newSocket(name string, lc listenConfig, ln netListener) *socket {
	return &socket{name: name, config: lc, listener: ln, accepting: make(chan struct{}, 1)}
}

// inPlace reports whether clients still find this socket under its path.
func (s *socket) inPlace() bool {
	if s.file == nil {
		return true
	}
	now, err := os.Lstat(s.config.Address.Address)
	return err == nil && os.SameFile(now, s.file)
}

// close closes the socket, and removes its file if that is still the one we made.
func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.dropKept()
	var err error
	if s.file != nil && s.inPlace() {
		err = os.Remove(s.config.Address.Address)
	}
	return errors.Join(err, s.listener.Close())
}

// address is where the socket listens, as parseSocketAddress reads it.
func (s *socket) address() string {
	a := s.listener.Addr()
	return a.Network() + ":" + a.String()
}
