package writer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// A writer that is not there is waited for, but not for ever.
func TestUnavailable(t *testing.T) {
	path := socketPath(t)
	c := &Client{Address: path, Wait: time.Millisecond}
	wantErr(t, deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0], ErrUnavailable, syscall.ENOENT)
	listen(t, path).Close()
	ln := listen(t, path) // and nobody accepts
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c.Grace = time.Millisecond
	wantErr(t, deliver(t, ctx, c, text("x\n"), owned("/r"))[0], ErrLost, context.DeadlineExceeded)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	wantErr(t, deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0], ErrUnavailable, syscall.ECONNREFUSED)

	// A socket of the other type is a mistake that no waiting repairs.
	path = socketPath(t)
	stream, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	c = &Client{Address: path, Wait: time.Hour}
	wantErr(t, deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0], ErrUnavailable, syscall.EPROTOTYPE)

	// One that comes back in time has cost nobody anything.
	path = socketPath(t)
	c = &Client{Address: path, Wait: time.Minute}
	results := make(chan maildir.Result, 1)
	go c.Deliver(t.Context(), text("x\n"), []maildir.Target{owned("/r")}, func(_ int, r maildir.Result) { results <- r })
	serve(t, &Server{Writer: good}, path)
	if r := <-results; r.Err != nil {
		t.Error(r.Err)
	}
}

// A connection that breaks before its results are there is a failure for now, for
// those that have none; what has been reported stays as it is.
func TestLost(t *testing.T) {
	path := socketPath(t)
	ln := listen(t, path)
	defer ln.Close()
	go func() {
		for {
			u, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			c, _ := newPacketConn(u)
			_ = c.receive(func([]byte, int) error { return nil })
			_ = c.send(appendResult(newPacket(nil), 1, &maildir.Result{File: "/b/new/1"}), -1)
			u.Close()
		}
	}()
	c := &Client{Address: path}
	r := deliver(t, t.Context(), c, text("x\n"), owned("/a"), owned("/b"), owned("/c"))
	wantErr(t, r[0], ErrLost)
	wantErr(t, r[2], ErrLost)
	if r[1].Err != nil || r[1].File != "/b/new/1" {
		t.Errorf("the one that was reported: %+v", r[1])
	}
}

// Answers that break the rules are failures, never deliveries.
func TestBadAnswers(t *testing.T) {
	ok := maildir.Result{File: "/a/new/1"}
	twice := appendResult(appendResult(newPacket(nil), 0, &ok), 0, &ok)
	for name, packets := range map[string][][]byte{
		"nonsense":      {[]byte("250 OK")},
		"other version": {append([]byte("LW\x07"), appendResult(nil, 0, &ok)...)},
		"other target":  {appendResult(newPacket(nil), 2, &ok)},
		"request":       {whole(t, begin{targets: 1}, "", owned("/r"))},
		"cut short":     {twice[:len(twice)/2-2]},
	} {
		path := socketPath(t)
		ln := listen(t, path)
		go func() {
			u, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			defer u.Close()
			c, _ := newPacketConn(u)
			_ = c.receive(func([]byte, int) error { return nil })
			for _, p := range packets {
				_ = c.send(p, -1)
			}
			_ = c.receive(func([]byte, int) error { return nil })
		}()
		c := &Client{Address: path}
		for _, r := range deliver(t, t.Context(), c, text("x\n"), owned("/a"), owned("/b")) {
			wantErr(t, r, ErrLost)
		}
		ln.Close()
		_ = name
	}
}

// A writer that is shut down finishes what it has, and the next one takes the rest:
// of many requests none is lost, fails, or is served twice.
func TestHandOver(t *testing.T) {
	path := socketPath(t)
	const requests = 500
	served := make(chan struct{}, 10*requests)
	counts := fake(func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result {
		served <- struct{}{}
		return good(ctx, b, t)
	})
	ln := listen(t, path)
	start := func() (*Server, chan error) {
		f, err := ln.File() // as systemd keeps the socket
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		s := &Server{Writer: counts, Authorize: allow, FrontUID: uint32(os.Getuid()), Log: slog.New(slog.DiscardHandler)}
		over := make(chan error, 1)
		go func() { over <- s.Serve(l) }()
		return s, over
	}
	c := &Client{Address: path}
	defer c.Close()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range requests / 4 {
				for _, r := range deliver(t, t.Context(), c, text("x\n"), owned("/a"), owned("/b")) {
					if r.Err != nil {
						t.Error(r.Err)
					}
				}
			}
		})
	}
	s, over := start()
	for range 9 {
		for range 2 * requests / 10 {
			<-served
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-over; err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
		s, over = start()
	}
	all.Wait()
	s.Shutdown(t.Context())
	<-over
	if n := 9*2*requests/10 + len(served); n != 2*requests {
		t.Errorf("%d copies for %d requests of two", n, requests)
	}
}

// A shutdown that is not waited for cuts off what has no name yet.
func TestShutdownByForce(t *testing.T) {
	started := make(chan struct{})
	s := &Server{Writer: fake(func(ctx context.Context, _ maildir.Body, _ maildir.Target) maildir.Result {
		close(started)
		<-ctx.Done()
		return maildir.Result{Err: &maildir.Error{Op: maildir.OpWrite, Err: context.Cause(ctx)}}
	})}
	c := pair(t, s)
	results := make(chan maildir.Result, 1)
	go c.Deliver(t.Context(), text("x\n"), []maildir.Target{owned("/r")}, func(_ int, r maildir.Result) { results <- r })
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err != context.Canceled {
		t.Errorf("Shutdown: %v", err)
	}
	wantErr(t, <-results, context.Canceled)
}

// bell is a log that tells when something is written to it.
type bell chan struct{}

func (s bell) Write(p []byte) (int, error) {
	select {
	case s <- struct{}{}:
	default:
	}
	return len(p), nil
}

// A front that does not read its results holds nobody up but itself.
func TestSilentFront(t *testing.T) {
	path := socketPath(t)
	large := fake(func(_ context.Context, _ maildir.Body, t maildir.Target) maildir.Result {
		return maildir.Result{File: string(make([]byte, 8000))}
	})
	givenUp := make(bell, 1)
	serve(t, &Server{Writer: large, Silence: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(givenUp, nil))}, path)
	conn := dialRaw(t, path)
	var targets []maildir.Target
	for range 500 {
		targets = append(targets, owned("/r"))
	}
	if err := conn.send(whole(t, begin{targets: 500}, "", targets...), -1); err != nil {
		t.Fatal(err)
	}
	c := &Client{Address: path}
	defer c.Close()
	if r := deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0]; r.Err != nil {
		t.Error(r.Err)
	}
	<-givenUp
	// What it has sent can be read, then the connection ends.
	for {
		err := conn.receive(func([]byte, int) error { return nil })
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
