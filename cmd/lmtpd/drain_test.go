package main

import (
	"bytes"
	"fmt"
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
	if err := d.start(loadText(t, text)); err != nil { // as a reload does
		t.Fatal(err)
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
