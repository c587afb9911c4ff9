package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// systemdSocket is the other end of NOTIFY_SOCKET: next returns one datagram.
func systemdSocket(t *testing.T) (next func() string) {
	t.Helper()
	path := t.TempDir() + "/notify"
	conn, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	next := systemdSocket(t)
	n := &notifier{log: discardLog()}
	for _, test := range []struct {
		send func()
		want string
	}{
		{func() { n.ready("2 sockets") }, "READY=1\nSTATUS=2 sockets"},
		{func() { n.status("a\nREADY=1\x00b") }, "STATUS=a READY=1 b"},
		{func() { n.stopping("draining") }, "STOPPING=1\nSTATUS=draining"},
	} {
		test.send()
		if got := next(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	n.reloading()
	lines := strings.Split(next(), "\n")
	if len(lines) != 3 || lines[0] != "RELOADING=1" || lines[2] != "STATUS=reloading" {
		t.Fatalf("got %q", lines)
	}
	usec, ok := strings.CutPrefix(lines[1], "MONOTONIC_USEC=")
	if since, err := strconv.ParseUint(usec, 10, 64); !ok || err != nil || since == 0 {
		t.Errorf("got %q", lines[1])
	}
}

func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var log bytes.Buffer
	n := &notifier{log: slog.New(slog.NewTextHandler(&log, nil))}
	n.ready("")
	n.reloading()
	n.stopping("")
	if log.Len() > 0 {
		t.Error(log.String())
	}
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/nobody")
	n.ready("")
	if !strings.Contains(log.String(), "telling systemd") {
		t.Errorf("got %q", log.String())
	}
}

// Nobody reads the socket: the daemon goes on, and says that it is ready when somebody
// reads again.
func TestNotifyWithoutReader(t *testing.T) {
	next := systemdSocket(t)
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	full := 0
	for ; err == nil; full++ {
		_, err = conn.Write([]byte("X=1"))
	}
	var log bytes.Buffer
	n := &notifier{log: slog.New(slog.NewTextHandler(&log, nil))}
	n.ready("serving") // returns
	if !strings.Contains(log.String(), "telling systemd") {
		t.Errorf("got %q", log.String())
	}
	for range full - 1 {
		next()
	}
	n.status("1 sessions")
	if got := next(); got != "READY=1\nSTATUS=1 sessions" {
		t.Errorf("got %q", got)
	}
	n.status("2 sessions")
	if got := next(); got != "STATUS=2 sessions" {
		t.Errorf("got %q", got)
	}
}

func TestWatchdog(t *testing.T) {
	next := systemdSocket(t)
	n := &notifier{log: discardLog()}
	ctx, cancel := context.WithCancel(t.Context())
	ticks, checked, done := make(chan time.Time), make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		n.watchdog(ctx, ticks, func() error { return <-checked })
	}()
	ticks <- time.Time{}
	checked <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	ticks <- time.Time{}
	checked <- errors.New("stuck")
	ticks <- time.Time{} // it goes on after a failure
	checked <- nil
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	n.status("after that")
	if got := next(); got != "STATUS=after that" {
		t.Errorf("a ping too many: %q", got)
	}
	cancel()
	<-done
}

func TestWatchdogInterval(t *testing.T) {
	n := &notifier{log: discardLog()}
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 15 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 15 * time.Second},
		{"30000000", "1", 0},
		{"soon", "", 0},
		{"-1", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := n.watchdogInterval(); got != test.want {
			t.Errorf("%q for process %q: %v, want %v", test.usec, test.pid, got, test.want)
		}
	}
}

func TestRunWatchdog(t *testing.T) {
	next := systemdSocket(t)
	n := &notifier{log: discardLog()}
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "")
	n.runWatchdog(t.Context(), nil) // returns at once
	t.Setenv("WATCHDOG_USEC", "2000")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.runWatchdog(ctx, func() error { return nil })
	}()
	if got := next(); got != "WATCHDOG=1" {
		t.Errorf("got %q", got)
	}
	cancel()
	<-done
}
