package main

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// serve runs a server for the test and returns its socket.
func serve(t *testing.T, srv *protocol.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv.Mode = protocol.LMTP
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return path
}

func TestEveryMessageIsDeliveredOnce(t *testing.T) {
	var delivered atomic.Int64
	srv := &protocol.Server{Policy: protocol.Policy{Mail: func(context.Context, *protocol.Transaction) protocol.Reply {
		delivered.Add(1)
		return protocol.Reply{}
	}}}
	l := load{socket: serve(t, srv), to: []string{"a@example.org", "b@example.org"}, messages: 50, workers: 3, perSession: 4, size: 500, timeout: time.Minute}
	got := l.run()
	if got.delivered != 50 || got.refused+got.turnedAway+got.lost+got.asked != 0 || len(got.faults) > 0 {
		t.Errorf("got %+v", got)
	}
	if delivered.Load() != 50 {
		t.Errorf("the server saw %d messages", delivered.Load())
	}
}

// What the server does wrong once is counted, and the message is tried again.
func TestFaultsAreCounted(t *testing.T) {
	once := func(r protocol.Reply) func() protocol.Reply {
		var n atomic.Int64
		return func() protocol.Reply {
			if n.Add(1) == 1 {
				return r
			}
			return protocol.Reply{}
		}
	}
	leave := once(protocol.Reply{Code: 421, Text: "go away", Then: protocol.CloseAfter})
	for _, test := range []struct {
		name   string
		policy protocol.Policy
		count  func(tally) int
	}{
		{"greeting", protocol.Policy{Connect: func(context.Context, *protocol.Session) protocol.Reply { return leave() }}, func(t tally) int { return t.turnedAway }},
		{"transaction", protocol.Policy{Rcpt: func(context.Context, *protocol.Transaction, *protocol.Recipient) protocol.Reply { return leave() }}, func(t tally) int { return t.lost }},
	} {
		t.Run(test.name, func(t *testing.T) {
			leave = once(protocol.Reply{Code: 421, Text: "go away", Then: protocol.CloseAfter})
			l := load{socket: serve(t, &protocol.Server{Policy: test.policy}), to: []string{"a@example.org"}, messages: 5, workers: 1, perSession: 1, size: 500, timeout: time.Minute}
			got := l.run()
			if got.delivered != 5 || test.count(got) != 1 || len(got.faults) != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
}
