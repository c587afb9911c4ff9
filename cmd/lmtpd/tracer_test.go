package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// traced is `lmtpd trace` while it runs.
type traced struct {
	stop context.CancelFunc
	done chan error
	out  bytes.Buffer
}

// startTrace returns once the daemon's tracer knows the watcher.
func startTrace(t *testing.T, o *observer, dir, client, recipient string) *traced {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	tr := &traced{stop: stop, done: make(chan error, 1)}
	notes, told := io.Pipe()
	go func() {
		tr.done <- trace(ctx, &tr.out, told, socketAddress{"unix", filepath.Join(dir, "status.sock")}, client, recipient)
		told.Close()
	}()
	if _, err := notes.Read(make([]byte, 100)); err != nil {
		t.Fatalf("%v: %v", err, <-tr.done)
	}
	go io.Copy(io.Discard, notes)
	return tr
}

// lines ends the trace from the daemon's side.
func (tr *traced) lines(t *testing.T, o *observer) string {
	t.Helper()
	o.tracer.close()
	if err := <-tr.done; err == nil || err.Error() != "the daemon is gone: it has ended" {
		t.Error(err)
	}
	tr.stop()
	return tr.out.String()
}

func TestTracer(t *testing.T) {
	clock := newTestClock()
	o := newObserver(clock.time)
	dir := askable(t, o)
	session := func(id uint64, addr net.Addr, lines ...string) {
		s := &protocol.Session{ID: id, RemoteAddr: addr}
		for _, line := range lines {
			o.tracer.wire(s, protocol.Direction(line[0]), []byte(line[1:]+"\r\n"))
		}
		o.tracer.ended(s)
	}
	unix, tcp := &net.UnixAddr{Net: "unix"}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711}
	all := func() {
		session(1, unix, "<LHLO mta.example.org", ">250 mx", "<MAIL FROM:<a@example.net>", "<RCPT TO:<Ann+x@Example.org>", ">250 OK", "<QUIT")
		session(2, unix, "<LHLO other", "<RCPT TO:<bob@example.org>", "<\x1b[2J\x00")
		session(3, tcp, "<LHLO mta.example.org", "<RCPT TO:<ann@example.org>")
	}
	const one = "10:00:00.000000 1 < LHLO mta.example.org\n10:00:00.000000 1 > 250 mx\n10:00:00.000000 1 < MAIL FROM:<a@example.net>\n" +
		"10:00:00.000000 1 < RCPT TO:<Ann+x@Example.org>\n10:00:00.000000 1 > 250 OK\n10:00:00.000000 1 < QUIT\n"
	const two = "10:00:00.000000 2 < LHLO other\n10:00:00.000000 2 < RCPT TO:<bob@example.org>\n" + `10:00:00.000000 2 < \x1b[2J\x00` + "\n"
	const three = "10:00:00.000000 3 < LHLO mta.example.org\n10:00:00.000000 3 < RCPT TO:<ann@example.org>\n"
	all() // nobody watches
	for _, test := range []struct{ client, recipient, want string }{
		{"", "", one + two + three},
		{"", "bob@example.org", two},
		{"", "ann", one + three},
		{"MTA.example.org", "", one + three},
		{"unix", "", one + two},
		{"192.0.2.1", "", three},
		{"unix", "ann+x@example.org", one},
		{"nobody", "", ""},
	} {
		tr := startTrace(t, o, dir, test.client, test.recipient)
		all()
		if got := tr.lines(t, o); got != test.want {
			t.Errorf("client %q, recipient %q: got\n%s\nwant\n%s", test.client, test.recipient, got, test.want)
		}
	}
}

// A watcher who does not read loses lines, and what is kept for it is bounded.
func TestTracerIsBounded(t *testing.T) {
	tr := &tracer{clock: newTestClock().time}
	w, picky := &traceWatcher{}, &traceWatcher{recipient: "nobody"}
	if !tr.add(w) || !tr.add(picky) {
		t.Fatal("refused")
	}
	line := []byte("NOOP " + strings.Repeat("x", 100) + "\r\n")
	for range 2 * tracedSessions {
		s := &protocol.Session{}
		for range 200 {
			tr.wire(s, protocol.FromClient, line)
		}
	}
	if len(w.lines) != traceQueue || w.lost.Load() == 0 {
		t.Errorf("%d lines, %d lost", len(w.lines), w.lost.Load())
	}
	if len(picky.sessions) != tracedSessions {
		t.Errorf("%d sessions", len(picky.sessions))
	}
	for _, ts := range picky.sessions {
		if ts.size > traceEarlier {
			t.Fatalf("%d octets kept of one", ts.size)
		}
	}
	for i := range maxWatchers {
		if got := tr.add(&traceWatcher{}); got != (i < maxWatchers-2) {
			t.Errorf("watcher %d: %v", i, got)
		}
	}
	tr.remove(w)
	if !tr.add(w) {
		t.Error("no room after one has gone")
	}
}

func TestTraceEnds(t *testing.T) {
	o := newObserver(time.Now)
	dir := askable(t, o)
	tr := startTrace(t, o, dir, "", "")
	tr.stop()
	if err := <-tr.done; err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	var out, stderr bytes.Buffer
	if code := run([]string{"trace", "--socket", dir + "/none.sock"}, nil, &out, &stderr); code != exitUnavailable || !strings.HasPrefix(stderr.String(), "lmtpd: no daemon is running here") {
		t.Errorf("%d, %s", code, stderr.String())
	}
}

func BenchmarkTracerUnwatched(b *testing.B) {
	tr := &tracer{clock: time.Now}
	s, line := &protocol.Session{}, []byte("RCPT TO:<ann@example.org>\r\n")
	for b.Loop() {
		tr.wire(s, protocol.FromClient, line)
	}
}
