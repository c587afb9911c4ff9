package protocol_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// secured starts an SMTP server that offers STARTTLS.
func secured(t *testing.T, h protocol.Handler, config func(*protocol.Server)) *protocoltest.Server {
	t.Helper()
	srv := protocoltest.NewUnstartedServer(protocol.SMTP, h)
	srv.UseTLS()
	srv.Config.Log = quiet
	if config != nil {
		config(srv.Config)
	}
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func TestStartTLS(t *testing.T) {
	rec := protocoltest.NewRecorder()
	srv := secured(t, rec, nil)
	c := srv.Dial(t)
	c.Expect("220")
	c.Cmd("503 5.5.1", "STARTTLS")
	if r := c.Cmd("250", "EHLO client.example.org"); !strings.Contains(r, "\n250-STARTTLS\r\n") {
		t.Errorf("not offered: %q", r)
	}
	c.Cmd("501", "STARTTLS now")
	c.Cmd("214", "HELP STARTTLS")
	c.Cmd("250", "MAIL FROM:<old@example.org>")
	c.Cmd("503 5.5.1 Error: MAIL", "STARTTLS")
	c.Cmd("250", "RSET")
	c.Cmd("220 2.0.0 Ready to start TLS", "STARTTLS")
	c.Secure(srv.ClientTLS())
	c.Cmd("503 5.5.1 Error: send HELO", "MAIL FROM:<a@example.org>") // the EHLO is forgotten
	if r := c.Cmd("250", "EHLO client.example.org"); strings.Contains(r, "STARTTLS") {
		t.Errorf("offered within TLS: %q", r)
	}
	c.Cmd("503 5.5.1 Error: TLS", "STARTTLS")
	if r := c.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("got %q", r)
	}
	c.Cmd("221", "QUIT")
	c.EOF()
	if m := rec.Messages(); len(m) != 1 || m[0].With != "ESMTPS" {
		t.Errorf("messages %+v", m)
	}
}

// TestStartTLSInjection: what was sent in one packet with STARTTLS is not carried out
// behind TLS (CVE-2011-0411), nor answered.
func TestStartTLSInjection(t *testing.T) {
	srv := secured(t, protocoltest.NewRecorder(), nil)
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Raw("STARTTLS\r\nEHLO evil.example.org\r\nMAIL FROM:<evil@example.org>\r\n")
	c.Expect("220")
	c.Secure(srv.ClientTLS())
	c.Cmd("250", "NOOP")
	c.Cmd("503 5.5.1 Error: send HELO", "RCPT TO:<b@example.org>")
}

func TestStartTLSNotOffered(t *testing.T) {
	srv := protocoltest.NewServer(nil)
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Cmd("454 4.7.0", "STARTTLS")
	c.Cmd("501", "HELP STARTTLS")
}

func TestTLSNeeded(t *testing.T) {
	srv := secured(t, nil, func(s *protocol.Server) { s.TLSNeeded = true })
	c := srv.Dial(t)
	c.Expect("220")
	c.Cmd("250", "NOOP")
	c.Cmd("250", "EHLO client.example.org")
	for _, cmd := range []string{"MAIL FROM:<a@example.org>", "HELP", "VRFY a", "RSET", "STARTTLSX", "DATA"} {
		c.Cmd("530 5.7.0 Must issue a STARTTLS command first", "%s", cmd)
	}
	c.Cmd("220", "STARTTLS")
	c.Secure(srv.ClientTLS())
	c.Cmd("250", "EHLO client.example.org")
	c.Cmd("250", "MAIL FROM:<a@example.org>")
	d := srv.Dial(t)
	d.Expect("220")
	d.Cmd("221", "QUIT")
}

// TestImplicitTLS: TLS from the first octet on, over TCP, ServeConn and in LMTP.
func TestImplicitTLS(t *testing.T) {
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewTLSServer(rec)
	defer srv.Close()
	c := srv.Dial(t)
	state := c.Secure(srv.ClientTLS())
	if len(state.PeerCertificates) != 1 || !state.PeerCertificates[0].Equal(srv.Certificate()) {
		t.Error("another certificate")
	}
	c.Hello("EHLO")
	if r := c.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("got %q", r)
	}
	if m := rec.Messages(); len(m) != 1 || m[0].With != "ESMTPS" {
		t.Errorf("messages %+v", m)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&protocol.Server{}).ServeTLS(l); err == nil {
		t.Error("ServeTLS without a configuration")
	}
	client, server := net.Pipe()
	lmtp := &protocol.Server{Mode: protocol.LMTP, Handler: rec, Log: quiet}
	served := background(func() error {
		return lmtp.ServeConn(context.Background(), tls.Server(server, srv.Config.TLSConfig))
	})
	d := protocoltest.NewClient(t, client)
	d.Secure(srv.ClientTLS())
	d.Hello("LHLO")
	d.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1)
	d.Cmd("221", "QUIT")
	d.EOF()
	d.Close()
	if err := result(t, served); err != nil {
		t.Errorf("ServeConn returned %v", err)
	}
	if m := rec.Messages(); len(m) != 2 || m[1].With != "LMTPS" {
		t.Errorf("messages %+v", m)
	}
}

// TestTLSPolicy: a policy sees the state of TLS; its refusal leaves nothing but QUIT.
func TestTLSPolicy(t *testing.T) {
	srv := secured(t, nil, func(s *protocol.Server) {
		s.TLSConfig.ClientAuth = tls.RequestClientCert
		s.Policy = protocol.Chain(protocol.Policy{StartTLS: func(_ context.Context, s *protocol.Session) protocol.Reply {
			if len(s.TLS.PeerCertificates) == 0 {
				return protocol.Replyf(554, protocol.Enhanced{}, "who are you?")
			}
			return protocol.Reply{}
		}})
	})
	for _, known := range []bool{false, true} {
		c := srv.Dial(t)
		c.Hello("EHLO")
		c.Cmd("220", "STARTTLS")
		config := srv.ClientTLS()
		if known {
			config.Certificates = srv.Config.TLSConfig.Certificates
		}
		c.Secure(config)
		if known {
			c.Cmd("250", "EHLO client.example.org")
			continue
		}
		c.Cmd("554 5.7.0 Command refused due to lack of security", "EHLO client.example.org")
		c.Cmd("554 5.7.0", "NOOP")
		c.Cmd("221", "QUIT")
		c.EOF()
	}
}

// TestTLSHandshakeFails: the policy is told, and the connection closed.
func TestTLSHandshakeFails(t *testing.T) {
	told := make(chan error, 2)
	srv := secured(t, nil, func(s *protocol.Server) {
		s.Policy.Failure = func(_ context.Context, _ *protocol.Session, err error) protocol.Reply {
			told <- err
			return protocol.Reply{}
		}
		s.Timeouts.Handshake = 50 * time.Millisecond
	})
	for _, say := range []string{"NOOP\r\nthis is no handshake at all\r\n", ""} {
		c := srv.Dial(t)
		c.Hello("EHLO")
		c.Cmd("220", "STARTTLS")
		c.Raw(say)
		if err := result(t, told); err == nil || !strings.Contains(err.Error(), "TLS handshake") {
			t.Errorf("told %v", err)
		}
		c.Conn().SetReadDeadline(time.Now().Add(patience))
		if out, _ := io.ReadAll(c.Conn()); strings.Contains(string(out), "250") {
			t.Errorf("after a failed handshake: %q", out)
		}
	}
}

// TestShutdownTLS: a session within TLS gets its 421 within TLS.
func TestShutdownTLS(t *testing.T) {
	srv := secured(t, nil, nil)
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Cmd("220", "STARTTLS")
	c.Secure(srv.ClientTLS())
	c.Cmd("250", "EHLO client.example.org")
	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}
