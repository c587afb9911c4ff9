package relay_test

import (
	"context"
	"crypto/tls"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/protocol/relay"
)

// TestTLS: TLS to the next server, and a message that demands it (RFC 8689) goes
// nowhere else.
func TestTLS(t *testing.T) {
	ext := protocol.DefaultExt | protocol.ExtRequireTLS
	rec := protocoltest.NewRecorder()
	secured := protocoltest.NewUnstartedServer(protocol.SMTP, rec)
	secured.Config.Ext, secured.Config.Log = ext, quiet
	secured.StartTLS()
	defer secured.Close()
	plain := startNext(t, protocol.SMTP, func(srv *protocol.Server) {
		// It offers what it may offer within TLS alone.
		srv.Policy.Extensions = func(_ context.Context, _ *protocol.Session, lines []string) []string {
			return append(lines, "REQUIRETLS")
		}
	})
	without := protocoltest.NewUnstartedServer(protocol.SMTP, rec)
	without.Config.Log = quiet
	without.StartTLS()
	defer without.Close()

	for _, test := range []struct {
		name, mail, want string
		next             *protocoltest.Server
		config           *tls.Config
	}{
		{"secured", "", "250", secured, secured.ClientTLS()},
		{"secured on demand", "REQUIRETLS", "250", secured, secured.ClientTLS()},
		{"plain", "", "250", plain.Server, nil},
		{"plain on demand", "REQUIRETLS", "550 5.7.30", plain.Server, nil},
		{"without the extension", "REQUIRETLS", "550 5.7.30", without, without.ClientTLS()},
		{"another certificate", "", "451 4.4.1", secured, without.ClientTLS()},
	} {
		t.Run(test.name, func(t *testing.T) {
			front := protocoltest.NewUnstartedServer(protocol.SMTP, &relay.Relay{Network: "tcp", Addr: test.next.Addr, TLS: test.config})
			front.Config.Ext, front.Config.Log = ext, quiet
			front.StartTLS()
			defer front.Close()
			c := front.Dial(t)
			c.Secure(front.ClientTLS())
			c.Hello("EHLO")
			c.Cmd("250", "MAIL FROM:<ann@example.org> %s", test.mail)
			c.Cmd("250", "RCPT TO:<bob@example.org>")
			c.Cmd("354", "DATA")
			c.Raw(protocoltest.Stuff(message))
			c.Expect(test.want)
			if test.next == secured && test.want == "250" {
				if m := rec.Next(t); m.With != "ESMTPS" {
					t.Errorf("with %s", m.With)
				}
			}
		})
	}
}
