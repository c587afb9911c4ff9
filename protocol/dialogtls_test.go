package protocol_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// secured reports whether there is a handshake.
func (d *dialog) secured() bool {
	return slices.ContainsFunc(d.steps, func(s step) bool { return s.tls != "" })
}

// implicitTLS reports whether the handshake comes before the greeting.
func (d *dialog) implicitTLS() bool { return d.steps[0].tls != "" && d.steps[0].expect == nil }

// handshake secures a client's connection where the dialog says so.
func (d *dialog) handshake(t testing.TB, conn net.Conn, how string) net.Conn {
	t.Helper()
	if how == "" {
		return conn
	}
	config := d.secure.ClientTLS()
	if how == "TLS certificate" {
		config.Certificates = d.secure.Config.TLSConfig.Certificates
	}
	conn.SetDeadline(time.Now().Add(patience))
	c := tls.Client(conn, config)
	if err := c.Handshake(); err != nil {
		t.Fatalf("TLS handshake: %v", err)
	}
	return c
}

// splitRecords is splitEverywhere for a dialog with TLS.
func (d *dialog) splitRecords(t *testing.T) {
	for i := range len(d.sent()) {
		ds := newDialogServer(t, d)
		client, server := net.Pipe()
		if d.implicitTLS() {
			server = tls.Server(server, ds.srv.TLSConfig)
		}
		served := background(func() error { return ds.srv.ServeConn(context.Background(), server) })
		client.SetDeadline(time.Now().Add(patience))
		d.inPieces(t, client, i)
		client.Close()
		result(t, served)
		ds.check(t, d)
	}
}

// tls offers TLS; words say what else there is.
func (ds *dialogServer) tls(d *dialog, words string) {
	ds.srv.TLSConfig = d.secure.Config.TLSConfig.Clone()
	if strings.Contains(words, "ask") {
		ds.srv.TLSConfig.ClientAuth = tls.RequestClientCert
	}
	ds.srv.TLSNeeded = strings.Contains(words, "needed")
	show := func(s *protocol.Session) protocol.Reply {
		switch {
		case s.TLS == nil:
			return protocol.Replyf(250, protocol.Enhanced{}, "plain")
		case len(s.TLS.PeerCertificates) == 0:
			return protocol.Replyf(250, protocol.Enhanced{}, "secured")
		}
		return protocol.Replyf(250, protocol.Enhanced{}, "secured, %s", s.TLS.PeerCertificates[0].Subject)
	}
	if strings.Contains(words, "show") {
		ds.srv.Policy.Noop = func(_ context.Context, s *protocol.Session, _ string) protocol.Reply { return show(s) }
	}
	if strings.Contains(words, "certificate") {
		ds.srv.Policy.StartTLS = func(_ context.Context, s *protocol.Session) protocol.Reply {
			if len(s.TLS.PeerCertificates) == 0 {
				return protocol.Replyf(554, protocol.Enhanced{}, "who are you?")
			}
			return protocol.Reply{}
		}
	}
}
