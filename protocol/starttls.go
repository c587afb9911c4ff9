package protocol

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

var (
	replyTLSReady  = Reply{Code: 220, Enhanced: Enhanced{2, 0, 0}, Text: "Ready to start TLS"}
	replyNoTLS     = Reply{Code: 454, Enhanced: Enhanced{4, 7, 0}, Text: "TLS not available"}
	replyTLSActive = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: TLS already active"}
	replyTLSNeeded = Reply{Code: 530, Enhanced: Enhanced{5, 7, 0}, Text: "Must issue a STARTTLS command first"}
	replyInsecure  = Reply{Code: 554, Enhanced: Enhanced{5, 7, 0}, Text: "Command refused due to lack of security"}
	replyEhloFirst = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: send EHLO first"}
)

// startTLS secures the connection: RFC 3207. Nothing that was said before survives.
func (s *Session) startTLS(ctx context.Context, arg []byte) Reply {
	switch {
	case len(arg) > 0:
		return s.syntax("STARTTLS")
	case s.TLS != nil:
		return s.fault(replyTLSActive)
	case s.srv.TLSConfig == nil:
		return replyNoTLS
	case !s.Extended && s.Mode == LMTP:
		return s.fault(replyLhloFirst)
	case !s.Extended:
		return s.fault(replyEhloFirst)
	case s.tx != nil:
		return s.fault(replyInMail)
	}
	s.put(replyTLSReady)
	if err := s.wire.flush(); err != nil {
		s.err = err
		return Reply{Code: 421, Then: CloseNow}
	}
	c := tls.Server(s.conn, s.srv.TLSConfig)
	s.wire.secure(c)
	return s.handshake(ctx, c)
}

// handshake brings the session to TLS.
func (s *Session) handshake(ctx context.Context, c *tls.Conn) Reply {
	d := s.srv.timeouts.Handshake
	if d > 0 {
		s.conn.SetWriteDeadline(time.Now().Add(d))
	}
	err := s.idle.hold(s.conn, s.srv, d)
	if err == nil {
		err = c.HandshakeContext(ctx)
	}
	s.idle.busy()
	switch {
	case s.idle.ended(err):
		return Reply{Code: 421, Then: CloseNow}
	case err != nil:
		s.err = fmt.Errorf("protocol: TLS handshake: %w", err)
		call1(s.srv.Policy.Failure, ctx, s, s.err) // there is nobody to reply to
		return Reply{Code: 421, Then: CloseNow}
	}
	s.conn.SetDeadline(time.Time{})
	state := c.ConnectionState()
	s.TLS = &state
	s.reset()
	s.Hello, s.Extended, s.Login, s.Identity = "", false, "", nil
	r := call(s.srv.Policy.StartTLS, ctx, s)
	s.insecure = !r.OK()
	return Reply{Code: replied.Code, Then: r.Then}
}

// gate refuses a command that must wait for TLS or AUTH, or gets none.
func (s *Session) gate(verb uint32, line []byte) Reply {
	if s.insecure && verb != vQUIT {
		return replyInsecure
	}
	if s.srv.TLSNeeded && s.TLS == nil {
		switch verb {
		case vNOOP, vHELO, vEHLO, vLHLO, vQUIT:
		default:
			if !isWord(line, "STARTTLS") {
				return replyTLSNeeded
			}
		}
	}
	if s.srv.Auth.Required && s.Identity == nil {
		switch verb {
		case vAUTH, vNOOP, vHELO, vEHLO, vLHLO, vRSET, vQUIT:
		default:
			if !isWord(line, "STARTTLS") {
				return replyAuthRequired
			}
		}
	}
	return Reply{}
}
