package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

func busyObserver() (*observer, *testClock) {
	clock := newTestClock()
	o := newObserver(clock.time)
	_, databases := o.observe(userdb.Chain{{Database: userdb.Any{}}})
	o.loaded("/etc/lmtpd/lmtpd.toml", []string{"lmtp unix:/run/lmtpd/lmtp.sock", "smtp tcp:127.0.0.1:25"}, databases)
	clock.now = clock.now.Add(100*time.Hour + 5*time.Second)
	o.outcome(goodOutcome)
	o.outcome(deferredOutcome)
	o.outcome(refusedOutcome)
	return o, clock
}

func TestStatusScreen(t *testing.T) {
	o, _ := busyObserver()
	dir := askable(t, o)
	var out, stderr bytes.Buffer
	if code := run([]string{"status", "--socket", dir + "/status.sock"}, nil, &out, &stderr); code != exitOK {
		t.Fatalf("%d: %s", code, stderr.String())
	}
	for _, want := range []string{
		", up 4d 04:00:05 since ", "configuration  /etc/lmtpd/lmtpd.toml, read ",
		"listening      lmtp unix:/run/lmtpd/lmtp.sock\n               smtp tcp:127.0.0.1:25\n",
		"sessions       0 open, 0 since the start\n",
		"  last minute          1         1        1  0.1   0.02\n",
		" any      0        0         0       0\n",
		"      5ms  ", "  bob  abc-1\n", "        1s  ", "  eve  abc-2\n",
		"  eve@example.org  452 4.2.2  queue id 4XyZ\n      maildir: write: disk quota exceeded\n",
		`  no\x1b[2J@example.org  550 5.1.1` + "\n      no such user\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
		if !unicode.IsPrint(r) {
			t.Errorf("%U on the screen", r)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	o, _ := busyObserver()
	o.refused(os.ErrInvalid)
	dir := askable(t, o)
	config := filepath.Join(dir, "lmtpd.toml")
	if err := os.WriteFile(config, []byte("[status]\nsocket = '"+dir+"/status.sock'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if code := run([]string{"status", "-c", config, "--json"}, nil, &out, &stderr); code != exitOK {
		t.Fatalf("%d: %s", code, stderr.String())
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
	for _, key := range []string{"version", "go", "pid", "started", "now", "configuration", "sessions", "totals", "rates", "lookups", "slowest", "last_deferred", "last_refused"} {
		if got[key] == nil {
			t.Errorf("no %s", key)
		}
	}
	if c := got["configuration"].(map[string]any); c["refused"] != "invalid argument" {
		t.Errorf("got %v", c)
	}
}

// What the front sees of the writer process is there, if there is one.
func TestStatusOfWriter(t *testing.T) {
	o, _ := busyObserver()
	if text := o.report().String(); strings.Contains(text, "writer ") {
		t.Errorf("a writer process out of nothing in\n%s", text)
	}
	d := &daemon{observer: o}
	socket := filepath.Join(shortDir(t), "writer.sock")
	client := d.writerOf(loadText(t, "[writer]\nsocket = '"+socket+"'\n"))
	client.Wait = time.Millisecond
	d.useWriter(client)
	body := maildir.Body{Data: []byte("x\n"), Size: 2, Lines: 1}
	target := maildir.Target{Owner: &maildir.Owner{UID: 64101, GID: 64201}, Root: "/home/bob", Path: "Maildir"}
	client.Deliver(t.Context(), body, []maildir.Target{target}, func(int, maildir.Result) {})
	text := o.report().String()
	for _, want := range []string{
		"\nwriter         " + socket + ", 0 connections, 0 renewed\n",
		"\n               requests: 0 answered, 1 unavailable, 0 lost, 0 refused; 0 copies forbidden\n\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, text := scrape(t, filepath.Join(askable(t, o), "metrics.sock"), "/metrics"); !strings.Contains(text, "\n"+`lmtpd_writer_requests_total{outcome="unavailable"} 1`+"\n") {
		t.Errorf("no unavailable writer in\n%s", text)
	}
	d.useWriter(nil)
	if o.report().Writer != nil {
		t.Error("a reload without a writer process changes nothing")
	}
}

func TestStatusWatch(t *testing.T) {
	o, clock := busyObserver()
	dir := askable(t, o)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ticks := make(chan time.Time)
	go func() {
		ticks <- clock.now
		o.outcome(goodOutcome)
		ticks <- clock.now
		stop()
	}()
	var out bytes.Buffer
	s := &statusScreen{out: &out, addr: socketAddress{"unix", dir + "/status.sock"}, clear: true}
	if err := s.watch(ctx, ticks); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\x1b[H\x1b[2J\x1b[3Jlmtpd "); n < 2 || n > 3 {
		t.Errorf("%d screens", n)
	}
}

func TestStatusWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := dir + "/stale.sock"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	off := filepath.Join(dir, "off.toml")
	if err := os.WriteFile(off, []byte("[status]\nsocket = ''\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--socket", dir + "/none.sock"}, exitUnavailable, "lmtpd: no daemon is running here: there is no " + dir + "/none.sock; start it"},
		{[]string{"--socket", stale}, exitUnavailable, "lmtpd: no daemon is running here: nobody listens on " + stale + " any more"},
		{[]string{"--socket", "tcp:127.0.0.1:1"}, exitUsage, "lmtpd: --socket: "},
		{[]string{"-c", off}, exitUnavailable, "lmtpd: status.socket is \"\" in " + off},
		{[]string{"--watch", "--socket", stale}, exitUnavailable, "lmtpd: no daemon is running here"},
	} {
		var out, stderr bytes.Buffer
		if code := run(append([]string{"status"}, test.args...), nil, &out, &stderr); code != test.code || !strings.HasPrefix(stderr.String(), test.want) || out.Len() > 0 {
			t.Errorf("%v: %d, %q, %q", test.args, code, stderr.String(), out.String())
		}
	}
}
