package protocol_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// silent is a session whose client has sent one octet of what comes before commands,
// which the server has read, and says no more.
func silent(t *testing.T, srv *protocol.Server, kind string) (client net.Conn, served <-chan error) {
	t.Helper()
	client, server := net.Pipe()
	first := "\x16"
	switch kind {
	case "TLS":
		server = tls.Server(server, srv.TLSConfig)
	case "PROXY":
		srv.Trust = func(*protocol.Session) protocol.Trust { return protocol.TrustProxy }
		first = "P"
	}
	served = background(func() error { return srv.ServeConn(context.Background(), server) })
	client.SetDeadline(time.Now().Add(patience))
	if kind == "STARTTLS" {
		c := protocoltest.NewClient(t, client)
		c.Hello("EHLO")
		c.Cmd("220", "STARTTLS")
	}
	if _, err := io.WriteString(client, first); err != nil {
		t.Fatal(err)
	}
	return client, served
}

func handshaking(failed chan<- error) *protocol.Server {
	test := protocoltest.NewUnstartedServer(protocol.SMTP, nil)
	test.UseTLS()
	return &protocol.Server{
		TLSConfig: test.Config.TLSConfig, Log: quiet,
		// Longer than any test may take.
		Timeouts: protocol.Timeouts{Handshake: time.Hour, Proxy: time.Hour},
		Policy: protocol.Policy{Failure: func(_ context.Context, _ *protocol.Session, err error) protocol.Reply {
			failed <- err
			return protocol.Reply{}
		}},
	}
}

// TestShutdownBeforeCommands: who is silent within a handshake, or before it, does not
// hold up Shutdown, which is no failure; where there is a time for newcomers, it ends
// with that.
func TestShutdownBeforeCommands(t *testing.T) {
	for _, kind := range []string{"TLS", "STARTTLS", "PROXY"} {
		for _, newcomer := range []time.Duration{0, 50 * time.Millisecond} {
			failed := make(chan error, 1)
			srv := handshaking(failed)
			srv.Timeouts.Newcomer = newcomer
			client, served := silent(t, srv, kind)
			down := background(func() error { return srv.Shutdown(context.Background()) })
			if err := result(t, down); err != nil {
				t.Errorf("%s: Shutdown returned %v", kind, err)
			}
			err := result(t, served)
			if newcomer == 0 && (err != nil || len(failed) > 0) {
				t.Errorf("%s: ServeConn returned %v, with %d failures", kind, err, len(failed))
			}
			client.Close()
		}
	}
}

// TestCrowdedBeforeCommands: nor does such a one take the place of others.
func TestCrowdedBeforeCommands(t *testing.T) {
	for _, kind := range []string{"TLS", "STARTTLS", "PROXY"} {
		srv := handshaking(make(chan error, 1))
		srv.Limits.Sessions = 1
		first, served := silent(t, srv, kind)
		client, server := net.Pipe()
		other := background(func() error { return srv.ServeConn(context.Background(), server) })
		if err := result(t, served); err != nil {
			t.Errorf("%s: ServeConn returned %v", kind, err)
		}
		client.SetDeadline(time.Now().Add(patience))
		if kind == "PROXY" {
			io.WriteString(client, "PROXY UNKNOWN\r\n")
		}
		c := protocoltest.NewClient(t, client)
		c.Expect("220")
		c.Cmd("221", "QUIT")
		c.Close()
		result(t, other)
		first.Close()
	}
}

// TestCloseLetsNobodyIn: what accept returns in the moment of Close is sent away,
// though a newcomer would have time after Shutdown.
func TestCloseLetsNobodyIn(t *testing.T) {
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Timeouts: protocol.Timeouts{Newcomer: time.Hour}}
	ours, theirs := net.Pipe()
	l := &lastListener{newScriptListener(&net.UnixAddr{Net: "unix", Name: "/s"}), make(chan struct{}), theirs}
	served := background(func() error { return srv.Serve(l) })
	<-l.waiting
	srv.Close()
	c := protocoltest.NewClient(t, ours)
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if err := result(t, served); err != protocol.ErrServerClosed {
		t.Errorf("Serve returned %v", err)
	}
}
