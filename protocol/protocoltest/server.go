// Package protocoltest helps to test with [protocol.Server], in the manner of
// net/http/httptest: servers on a free port or a Unix socket, a handler that
// records messages, and a client that follows a script.
package protocoltest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/lmtpd/lmtpd/protocol"
)

// Server is a server that listens on an address chosen by the system.
type Server struct {
	// Config may be changed between NewUnstartedServer and Start.
	Config *protocol.Server
	// Network and Addr are what to dial, once started.
	Network, Addr string
	// Link is what connections go over; the zero value changes nothing. Set it
	// before Start.
	Link Link

	pipes    *pipes // not nil: no listener
	listener net.Listener
	implicit bool // TLS from the first octet on
	dir      string
	mu       sync.Mutex
	conns    []net.Conn // every one that was accepted
	served   chan struct{}
	once     sync.Once
}

// NewServer starts an SMTP server on a loopback port. It panics if that fails.
func NewServer(h protocol.Handler) *Server {
	s := NewUnstartedServer(protocol.SMTP, h)
	s.Start()
	return s
}

// NewLMTPServer starts an LMTP server on a Unix socket.
func NewLMTPServer(h protocol.Handler) *Server {
	s := NewUnstartedServer(protocol.LMTP, h)
	s.StartUnix()
	return s
}

// NewUnstartedServer makes a server whose Config can still be changed.
func NewUnstartedServer(mode protocol.Mode, h protocol.Handler) *Server {
	s := &Server{
		Config: &protocol.Server{Mode: mode, Hostname: "mx.example.org", Handler: h},
		served: make(chan struct{}),
	}
	if r, ok := h.(*Recorder); ok {
		s.Config.Policy = r.Policy()
	}
	return s
}

// Start listens on a loopback port and serves it in the background.
func (s *Server) Start() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = net.Listen("tcp", "[::1]:0"); err != nil {
			panic(fmt.Sprintf("protocoltest: %v", err))
		}
	}
	s.serve(l)
}

// StartUnix listens on a Unix socket in a directory of its own, which Close removes.
func (s *Server) StartUnix() {
	dir, err := os.MkdirTemp("", "lmtp")
	if err != nil {
		panic(fmt.Sprintf("protocoltest: %v", err))
	}
	s.dir = dir
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		panic(fmt.Sprintf("protocoltest: %v", err))
	}
	s.serve(l)
}

func (s *Server) serve(l net.Listener) {
	s.listener = l
	s.Network, s.Addr = l.Addr().Network(), l.Addr().String()
	go func() {
		defer close(s.served)
		if s.implicit {
			s.Config.ServeTLS(trackingListener{l, s})
		} else {
			s.Config.Serve(trackingListener{l, s})
		}
	}()
}

// CloseClientConnections cuts every session off; the server goes on.
func (s *Server) CloseClientConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// Close shuts the server down, cutting sessions off, and returns when they have
// ended. A handler that hangs, and does not mind its context, hangs Close too.
func (s *Server) Close() {
	s.once.Do(func() {
		if s.listener == nil && s.pipes == nil {
			return // never started
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Config.Shutdown(ctx)
		if s.pipes != nil {
			s.pipes.sessions.Wait()
			return
		}
		<-s.served
		s.Config.Shutdown(context.Background()) // the sessions end now: wait for them
		if s.dir != "" {
			os.RemoveAll(s.dir)
		}
	})
}

// trackingListener notes connections.
type trackingListener struct {
	net.Listener
	s *Server
}

func (l trackingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.s.track(c), nil
}

// track notes a connection and gives it as the server is to see it.
func (s *Server) track(c net.Conn) net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	if s.Link.Chunk > 0 || s.Link.Wait != nil {
		return &slowConn{c, s.Link}
	}
	return c
}
