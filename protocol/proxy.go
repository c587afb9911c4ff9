package protocol

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

// proxied reads the header that a trusted proxy sends before everything else. Who
// sends none, or a bad one, or too late, gets no reply: it is no client.
func (s *Session) proxied(ctx context.Context) error {
	conn := s.conn
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn() // the header comes before TLS
	}
	err := s.idle.hold(conn, s.srv, s.srv.timeouts.Proxy)
	var h *ProxyHeader
	if err == nil {
		h, err = readProxyHeader(conn)
	}
	s.idle.busy()
	switch {
	case s.idle.ended(err):
		return errInterrupted
	case err != nil:
		err = fmt.Errorf("protocol: PROXY header: %w", err)
		call1(s.srv.Policy.Failure, ctx, s, err) // there is nobody to reply to
		return err
	}
	conn.SetReadDeadline(time.Time{})
	s.Proxy = h
	if h.Source != nil {
		s.RemoteAddr = h.Source
	}
	if h.Destination != nil {
		s.LocalAddr = h.Destination
	}
	if r := call(s.srv.Policy.Proxy, ctx, s); !r.OK() || r.Then != Continue {
		return fmt.Errorf("protocol: PROXY header refused: %w", r)
	}
	return nil
}
