package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
)

// The end of the daemon waits for the quota warnings of former configurations too.
func TestDrainAwaitsNoticesOfBefore(t *testing.T) {
	dir := shortDir(t)
	box, gate, out := filepath.Join(dir, "mail"), filepath.Join(dir, "gate"), filepath.Join(dir, "out")
	user := ""
	for path, mode := range map[string]os.FileMode{dir: 0o777, box: 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(gate, 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		user = "mail"
	}
	text := fmt.Sprintf(`
state_directory = %q
[[listen]]
address = "unix:%s/lmtp.sock"
[status]
socket = ""
[mailbox]
path = "%s/%%n"
quota_messages = 2
[commands]
user = %q
[[userdb]]
type = "any"
domains = ["example.org"]
[[quota_warning]]
percent = 50
command = ["/bin/sh", "-c", "read x <%s; sleep 0.3; echo told >%s"]
`, dir, dir, box, user, gate, out)
	var log bytes.Buffer
	d := writerDaemon(t, &log)
	d.observer, d.pings = newObserver(time.Now), make(chan struct{})
	if err := d.start(loadText(t, text)); err != nil {
		t.Fatal(err)
	}
	got, err := d.agents.current.Load().Submit(t.Context(), delivery.Envelope{Rcpts: []string{"bob@example.org"}}, strings.NewReader("Subject: x\n\nx\n"))
	if err != nil || !got[0].Reply.OK() {
		t.Fatalf("%+v, %v, %s", got, err, log.String())
	}
	before := d.agents.current.Load().Quota.Commands
	if err := d.start(loadText(t, text)); err != nil { // as a reload does
		t.Fatal(err)
	}
	if now := d.agents.current.Load().Quota.Commands; now != before || now == nil {
		t.Error("the reload has doubled the limit of programs")
	}
	done := make(chan error, 1)
	go func() { done <- d.drain(syscall.SIGTERM, nil) }()
	f, err := os.OpenFile(gate, os.O_WRONLY, 0) // the program reads it
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "go on")
	f.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "told\n" {
		t.Errorf("%q, %v: the daemon has ended before", text, err)
	}
	d.agents.redelivery.Close()
}

// A program that never ends does not keep the daemon from ending: it is killed with its
// children, and its recipient is told to come again.
func TestDrainEndsDeliveries(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	started := filepath.Join(dir, "started")
	if err := syscall.Mkfifo(started, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(started, 0o666); err != nil {
		t.Fatal(err)
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "mail"
	}
	var log bytes.Buffer
	d := writerDaemon(t, &log)
	d.observer, d.pings = newObserver(time.Now), make(chan struct{})
	d.patience.deliveries = 50 * time.Millisecond
	err := d.start(loadText(t, fmt.Sprintf(`
state_directory = %q
[[listen]]
address = "unix:%s/lmtp.sock"
[status]
socket = ""
[delivery]
transport = "program"
[commands]
user = %q
[mailbox]
path = "/nowhere/%%n"
[[userdb]]
type = "any"
domains = ["example.org"]
[[transport]]
name = "program"
type = "pipe"
command = ["/bin/sh", "-c", "sleep 1000 & echo $! >%s; wait"]
`, dir, dir, user, started)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "lmtp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(conn)
		said <- string(b)
	}()
	fmt.Fprint(conn, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n")
	child, err := os.ReadFile(started)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.drain(syscall.SIGTERM, nil); err != nil {
		t.Error(err)
	}
	if got := <-said; !strings.Contains(got, "\r\n451 4.3.2 ") {
		t.Errorf("%q, %s", got, log.String())
	}
	if stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("child goes on: %s", stat)
	}
	d.agents.redelivery.Close()
}

// systemd must not kill a daemon that still has time.
func TestDrainIsShorterThanTheUnits(t *testing.T) {
	p := drainPatience{}.orDefault()
	for _, unit := range []string{"lmtpd.service", "lmtpd-writer.service"} {
		text, err := os.ReadFile("../../packaging/debian/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\nTimeoutStopSec=")
		line, _, _ := strings.Cut(rest, "\n")
		if stop, err := time.ParseDuration(line + "s"); err != nil || p.deliveries >= p.all || p.all+noticePatience+5*time.Second > stop {
			t.Errorf("%s: TimeoutStopSec=%s, %+v, %v", unit, line, p, err)
		}
	}
}
