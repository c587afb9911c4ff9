package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// generation is a socket as one generation of servers sees it.
//
// Connections are taken from the kernel only while a server waits for one: those that
// nobody waits for stay in the backlog, where they survive even this process if the
// socket is systemd's. A permanent accepting goroutine would hold one of them.
type generation struct {
	socket *socket
	ended  chan struct{} // closed by Close
	once   sync.Once
}

func newGeneration(s *socket) *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generations++
	return &generation{socket: s, ended: make(chan struct{})}
}

// Accept waits for a connection until this generation is closed; then the error is
// net.ErrClosed. A connection that arrives in the very moment of Close goes to the
// next generation. Once the socket itself is closed, Accept waits for Close.
func (g *generation) Accept() (net.Conn, error) {
	for {
		conn, closed, err := g.take()
		if conn != nil || err != nil {
			return conn, err
		}
		if closed {
			<-g.ended
			return nil, net.ErrClosed
		}
	}
}

// take accepts one connection; it returns nothing at all if it has to be called again.
func (g *generation) take() (conn net.Conn, closed bool, err error) {
	s := g.socket
	// The deadline is a property of the socket, so only one may wait in Accept.
	select {
	case s.accepting <- struct{}{}:
		defer func() { <-s.accepting }()
	case <-g.ended:
		return nil, false, net.ErrClosed
	}
	if conn, closed, err = g.prepare(); conn != nil || closed || err != nil {
		return conn, closed, err
	}
	conn, err = s.listener.Accept()

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && g.over() && !s.closed:
		s.kept = append(s.kept, conn)
		return nil, false, net.ErrClosed
	case err == nil:
		return conn, false, nil
	case g.over():
		return nil, false, net.ErrClosed
	case s.closed:
		return nil, true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, nil // another generation has ended
	}
	return nil, false, err
}

// prepare takes a kept connection if there is one, or else clears the deadline that the
// end of another generation has set.
func (g *generation) prepare() (conn net.Conn, closed bool, err error) {
	s := g.socket
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case g.over():
		return nil, false, net.ErrClosed
	case len(s.kept) > 0:
		conn, s.kept = s.kept[0], s.kept[1:]
		return conn, false, nil
	case s.closed:
		return nil, true, nil
	}
	return nil, false, s.listener.SetDeadline(time.Time{})
}

func (g *generation) over() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// Close ends Accept of this generation; the socket stays open.
func (g *generation) Close() error {
	g.once.Do(func() {
		s := g.socket
		s.mu.Lock()
		defer s.mu.Unlock()
		close(g.ended)
		s.generations--
		if !s.closed {
			_ = s.listener.SetDeadline(time.Unix(1, 0)) // wakes Accept
		}
		s.dropKept()
	})
	return nil
}

func (g *generation) Addr() net.Addr { return g.socket.listener.Addr() }

// dropKept closes what was kept for a generation that will not come. The caller holds mu.
func (s *socket) dropKept() {
	if !s.closed || s.generations > 0 {
		return
	}
	for _, conn := range s.kept {
		conn.Close()
	}
	s.kept = nil
}
