package protocoltest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

// NewPipe makes a server without a socket: Dial makes a net.Pipe and serves its other
// end. A pipe holds nothing: who writes waits until the other reads, so a Client must
// read replies before the server has more of them than fit into its buffers.
func NewPipe(mode protocol.Mode, h protocol.Handler) *Server {
	s := NewUnstartedServer(mode, h)
	s.Network, s.Addr = "pipe", "pipe"
	s.pipes = &pipes{}
	return s
}

// pipes counts the sessions on pipes.
type pipes struct{ sessions sync.WaitGroup }

func (s *Server) dialPipe(t testing.TB) *Client {
	t.Helper()
	client, server := net.Pipe()
	conn := s.track(server)
	s.pipes.sessions.Go(func() { s.Config.ServeConn(context.Background(), conn) })
	return NewClient(t, client)
}
