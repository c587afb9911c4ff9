package writer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// A client counts what its requests meet.
func TestCounts(t *testing.T) {
	var n Counts
	want := func(open int64, made, reconnects, answered, unavailable, lost, refused, forbidden uint64) {
		t.Helper()
		have := fmt.Sprint(n.Open.Load(), n.Made.Load(), n.Reconnects.Load(), n.Answered.Load(), n.Unavailable.Load(),
			n.Lost.Load(), n.Refused.Load(), n.Forbidden.Load())
		if w := fmt.Sprint(open, made, reconnects, answered, unavailable, lost, refused, forbidden); have != w {
			t.Errorf("counts are %s, want %s", have, w)
		}
	}
	path := socketPath(t)
	c := &Client{Address: path, Wait: time.Millisecond, Counts: &n}
	ask := func() { t.Helper(); deliver(t, t.Context(), c, text("x\n"), owned("/r")) }
	ask()
	want(0, 0, 0, 0, 1, 0, 0, 0)

	start := func(s *Server) (end func()) {
		t.Helper()
		s.Writer, s.Log = good, slog.New(slog.DiscardHandler)
		ln := listen(t, path)
		over := make(chan error, 1)
		go func() { over <- s.Serve(ln) }()
		return func() {
			t.Helper()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			<-over
		}
	}
	me := uint32(os.Getuid())
	end := start(&Server{FrontUID: me, Authorize: allow})
	ask()
	ask()
	want(1, 1, 0, 2, 1, 0, 0, 0)
	end()

	// Another writer, which knows the user otherwise.
	end = start(&Server{FrontUID: me, Authorize: func(context.Context, *maildir.Target) error { return maildir.ErrPath }})
	ask()
	want(1, 2, 1, 3, 1, 0, 0, 1)
	c.Close()
	c.closed = false
	want(0, 2, 1, 3, 1, 0, 0, 1)
	end()

	end = start(&Server{FrontUID: me + 1, Authorize: allow})
	ask()
	want(0, 3, 1, 3, 1, 0, 1, 1)
	end()

	// One that ends in the middle.
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		u, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		conn, _ := newPacketConn(u)
		_ = conn.receive(func([]byte, int) error { return nil })
		u.Close()
	}()
	ask()
	want(0, 4, 1, 3, 1, 1, 1, 1)
}
