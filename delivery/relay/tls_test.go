package relay_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/relay"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

func TestTLS(t *testing.T) {
	start := func(implicit, offered bool) *protocoltest.Server {
		s := protocoltest.NewUnstartedServer(protocol.SMTP, protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, b *protocol.Body) error {
			io.Copy(io.Discard, b)
			return protocol.Replyf(250, protocol.Enhanced{2, 0, 0}, "by %s", tx.With())
		}))
		switch {
		case implicit:
			s.StartTLS()
		case offered:
			s.UseTLS()
			s.Start()
		default:
			s.Start()
		}
		t.Cleanup(s.Close)
		return s
	}
	safe, plain, implicit := start(false, true), start(false, false), start(true, true)
	atLocalhost := func(s *protocoltest.Server) relay.Host { // the certificate's name
		_, port, _ := net.SplitHostPort(s.Addr)
		return relay.Host{Network: "tcp", Addr: net.JoinHostPort("localhost", port)}
	}
	trust := func(s *protocoltest.Server) *tls.Config { return &tls.Config{RootCAs: s.ClientTLS().RootCAs} }
	broken := newTCPScript(t, "> 220 x\n< EHLO\n> 250-x\\n250 STARTTLS\n< STARTTLS\n> 220 go\n> nonsense\nhang", "> 220 x\n< EHLO\n> 250 x\n< MAIL\n> 250 x\n< RCPT\n> 250 x\n< DATA\n> 354 x\n<data\n> 250 in clear\nhang")
	for _, test := range []struct {
		name     string
		host     relay.Host
		security relay.Security
		config   *tls.Config
		want     string
	}{
		{"off", atLocalhost(safe), relay.TLSOff, nil, "ok by ESMTP"},
		{"opportunistic", atLocalhost(safe), relay.TLSOpportunistic, nil, "ok by ESMTPS"},
		{"opportunistic, not offered", atLocalhost(plain), relay.TLSOpportunistic, nil, "ok by ESMTP"},
		{"opportunistic, broken", broken.Host, relay.TLSOpportunistic, nil, "ok in clear"},
		{"required", atLocalhost(safe), relay.TLSRequired, trust(safe), "ok by ESMTPS"},
		{"required, not offered", atLocalhost(plain), relay.TLSRequired, trust(safe), "connection to the next server is not safe|*"},
		{"required, unknown CA", atLocalhost(safe), relay.TLSRequired, trust(implicit), "connection to the next server is not safe|*"},
		{"required, system's CAs", atLocalhost(safe), relay.TLSRequired, nil, "connection to the next server is not safe|*"},
		{"implicit", atLocalhost(implicit), relay.TLSImplicit, trust(implicit), "ok by ESMTPS"},
		{"implicit, plain server", atLocalhost(plain), relay.TLSImplicit, trust(implicit), "connection to the next server is not safe|*"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &relay.Relay{Mode: protocol.SMTP, Hosts: []relay.Host{test.host}, TLS: test.security, TLSConfig: test.config, Connect: 2 * time.Second}
			defer r.CloseIdle()
			want(t, deliver(t, r, parcel("", "a@example.org")), test.want)
		})
	}
	// REQUIRETLS goes on where the server offers it and is known to be the one.
	strict := protocoltest.NewUnstartedServer(protocol.SMTP, protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, b *protocol.Body) error {
		io.Copy(io.Discard, b)
		return protocol.Replyf(250, protocol.Enhanced{2, 0, 0}, "%t", tx.Mail.RequireTLS)
	}))
	strict.Config.Ext = protocol.DefaultExt | protocol.ExtRequireTLS
	strict.UseTLS()
	strict.Start()
	defer strict.Close()
	for security, outcome := range map[relay.Security]string{relay.TLSRequired: "ok true", relay.TLSOpportunistic: "tcp:*"} {
		r := &relay.Relay{Mode: protocol.SMTP, Hosts: []relay.Host{atLocalhost(strict)}, TLS: security, TLSConfig: trust(strict)}
		p := parcel("", "a@example.org")
		p.Mail.RequireTLS = true
		want(t, deliver(t, r, p), outcome)
		r.CloseIdle()
	}
	// Another name than that in the certificate.
	other := &relay.Relay{Mode: protocol.SMTP, TLS: relay.TLSRequired, TLSConfig: &tls.Config{RootCAs: x509.NewCertPool()}}
	p := parcel("", "a@example.org")
	p.Host = safe.Addr
	want(t, deliver(t, other, p), "connection to the next server is not safe|*")
}

// newTCPScript is newScript on a loopback port.
func newTCPScript(t *testing.T, dialogs ...string) *script {
	t.Helper()
	s := newScript(t, dialogs...)
	path := s.Addr
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", path)
			if err != nil {
				in.Close()
				return
			}
			go func() { io.Copy(out, in); out.(*net.UnixConn).CloseWrite() }()
			go func() { io.Copy(in, out); in.Close() }()
		}
	}()
	s.Host = relay.Host{Network: "tcp", Addr: l.Addr().String()}
	return s
}
