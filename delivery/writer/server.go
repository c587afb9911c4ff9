package writer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Server is the writer process's side: it has the copies written that the front
// asks for. Writer, FrontUID and Authorize must be set; no field may change after
// the first call. Its methods are safe for concurrent use.
type Server struct {
	// Writer writes the copies; *maildir.Writer but in tests.
	Writer interface {
		Deliver(ctx context.Context, b maildir.Body, targets []maildir.Target, done func(i int, r maildir.Result))
	}
	// FrontUID is the only uid whose connections are taken, by SO_PEERCRED.
	FrontUID uint32
	// Authorize says, independently of the front, whether a copy may be written as
	// t says, and may replace what it knows better. It is called from several
	// goroutines. Its error is the copy's, and should wrap maildir.ErrOwner or ErrPath.
	Authorize func(ctx context.Context, t *maildir.Target) error
	// Behind is how long Authorize is asked again where it refuses, because it may know
	// of a change of users later than the front; 0: not at all.
	Behind time.Duration

	Connections int           // at a time, more wait in the backlog; 0: 2048
	Incomplete  time.Duration // how long a request may take to arrive; 0: 30 s
	Silence     time.Duration // how long the front may leave results unread; 0: 30 s
	Log         *slog.Logger  // nil: slog.Default
	Report      func(r maildir.Result)

	mu       sync.Mutex
	ending   bool
	crowded  bool // a connection waits for another to end
	sessions map[*session]struct{}
	ends     map[net.Listener]struct{}
	over     sync.WaitGroup // sessions, and each Serve
	slots    chan struct{}  // has room for Connections
	base     context.Context
	cut      context.CancelCauseFunc
}

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("writer: server closed")

// errCut ends copies that Shutdown does not wait for.
var errCut = fmt.Errorf("writer process is stopping: %w", context.Canceled)

// init makes what the methods need. The caller holds mu.
func (s *Server) init() {
	if s.sessions == nil {
		s.sessions = make(map[*session]struct{})
		s.ends = make(map[net.Listener]struct{})
		s.slots = make(chan struct{}, orDefault(s.Connections, 2048))
		s.base, s.cut = context.WithCancelCause(context.Background())
	}
}

// Serve takes connections from a listener of Unix seqpacket sockets, which it
// closes in the end. It returns ErrServerClosed after Shutdown, or else why it
// cannot go on.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	if s.Writer == nil || s.Authorize == nil {
		return errors.New("writer: Server needs Writer and Authorize")
	}
	s.mu.Lock()
	s.init()
	if s.ending {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.ends[ln] = struct{}{}
	s.over.Add(1) // so that a connection accepted in the last moment is waited for
	s.mu.Unlock()
	defer s.over.Done()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ends, ln)
	}()
	pause := time.Duration(0)
	for {
		if !s.room() {
			return ErrServerClosed
		}
		conn, err := ln.Accept()
		if err == nil {
			pause = 0
			s.begin(conn)
			continue
		}
		<-s.slots
		var temporary interface{ Temporary() bool }
		switch {
		case s.isEnding():
			return ErrServerClosed
		case !errors.As(err, &temporary) || !temporary.Temporary():
			return err
		}
		// Out of descriptors or memory, as a rule: others have to end first.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.log().Error("accepting connections of the front", "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.base.Done():
		}
		timer.Stop()
	}
}

// room waits until another connection may be taken. Connections that idle make way:
// the client keeps some, and others may wait in the backlog with a request.
func (s *Server) room() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
	}
	s.mu.Lock()
	s.crowded = true
	for n := range s.sessions {
		if n.makeWay() {
			break
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.crowded = false
	}()
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.base.Done():
		return false
	}
}

func (s *Server) isCrowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowded
}

// begin serves a connection in a goroutine, with the slot that the caller took.
func (s *Server) begin(conn net.Conn) {
	c, err := s.welcome(conn)
	if err != nil {
		s.log().Warn("connection refused", "error", err)
		conn.Close()
		<-s.slots
		return
	}
	n := &session{srv: s, conn: c, req: newRequest()}
	s.mu.Lock()
	s.sessions[n] = struct{}{}
	n.draining = s.ending
	s.mu.Unlock()
	s.over.Go(func() {
		n.run()
		s.mu.Lock()
		delete(s.sessions, n)
		s.mu.Unlock()
		<-s.slots
	})
}

// welcome looks who connects.
func (s *Server) welcome(conn net.Conn) (*packetConn, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("not a Unix socket: %T", conn)
	}
	c, err := newPacketConn(u)
	if err != nil {
		return nil, err
	}
	peer, err := c.peer()
	if err != nil {
		return nil, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	if peer.Uid != s.FrontUID {
		_ = c.send(appendRefused(newPacket(nil), fmt.Sprintf("uid %d is not the front's", peer.Uid)), -1)
		return nil, fmt.Errorf("process %d has uid %d, and the front has %d", peer.Pid, peer.Uid, s.FrontUID)
	}
	return c, nil
}

// Shutdown takes no more connections and no more requests, and returns when those
// under way are over, or have been cut off because ctx was done. A request that it
// did not take fails on the front's side before it is sent, so that the front can
// send it to the next writer.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.init()
	s.ending = true
	for ln := range s.ends {
		ln.Close()
	}
	for n := range s.sessions {
		n.drain()
	}
	s.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		s.over.Wait()
	}()
	select {
	case <-over:
		s.cut(errCut) // wakes a Serve that waits for a slot
		return nil
	case <-ctx.Done():
	}
	s.cut(errCut)
	return context.Cause(ctx)
}

// Sessions is the number of connections.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

func (s *Server) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}
