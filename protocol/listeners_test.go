package protocol_test

import (
	"context"
	"io"
	"net"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// TestManyListeners: one server on IPv4, IPv6 and a Unix socket, beside another server;
// each session knows where its client is, and Shutdown ends all of it.
func TestManyListeners(t *testing.T) {
	from := make(chan string, 1)
	handler := protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		from <- tx.Session.ClientAddr()
		_, err := body.WriteTo(io.Discard)
		return err
	})
	srv := &protocol.Server{Hostname: "one.example.org", Handler: handler, Log: quiet}
	other := &protocol.Server{Hostname: "other.example.org", Handler: handler, Log: quiet}
	var served []<-chan error
	for _, l := range []struct {
		srv                     *protocol.Server
		network, addr, client   string
		mayBeMissing, different bool
	}{
		{srv: srv, network: "tcp", addr: "127.0.0.1:0", client: "127.0.0.1"},
		{srv: srv, network: "tcp", addr: "[::1]:0", client: "::1", mayBeMissing: true},
		{srv: srv, network: "unix", addr: t.TempDir() + "/s", client: "local"},
		{srv: other, network: "tcp", addr: "127.0.0.1:0", client: "127.0.0.1", different: true},
	} {
		listener, err := net.Listen(l.network, l.addr)
		if err != nil && l.mayBeMissing {
			t.Logf("left out: %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, background(func() error { return l.srv.Serve(listener) }))
		conn, err := net.Dial(l.network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := protocoltest.NewClient(t, conn)
		want := "220 one.example.org"
		if l.different {
			want = "220 other.example.org"
		}
		c.Expect(want)
		c.Cmd("250", "HELO x")
		envelope(c, 1)
		c.Expect("250")
		if got := <-from; got != l.client {
			t.Errorf("%s: the client is at %s", l.addr, got)
		}
		c.Close()
	}
	for _, s := range []*protocol.Server{srv, other} {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
	}
	for _, s := range served {
		if err := result(t, s); err != protocol.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	}
}
