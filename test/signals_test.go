package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// open starts a transaction and stops in the middle of its message.
func open(t *testing.T, sock, to string) *client {
	t.Helper()
	c := dial(t, sock)
	c.expect(t, "250", "LHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "250", "RCPT TO:<"+to+">")
	c.expect(t, "354", "DATA")
	c.write(t, []byte(header+"\r\nfirst half\r\n"))
	return c
}

// idle is a session outside a transaction.
func idle(t *testing.T, sock string) *client {
	t.Helper()
	c := dial(t, sock)
	c.expect(t, "250", "LHLO client.example.net")
	return c
}

// TestDrain: a signal ends idle sessions, and a transaction when it is done.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			s := startPlainSite(t, "user")
			busy, waiting, fresh := open(t, s.sock, "user@example.org"), idle(t, s.sock), dial(t, s.sock)
			s.signal(t, signal)
			s.awaitState(t, "STOPPING=1")
			for _, c := range []*client{waiting, fresh} {
				if r := c.reply(t); !strings.HasPrefix(r, "421 4.3.2 ") {
					t.Errorf("idle session: %q", r)
				}
				c.end(t)
			}
			// Nobody new, and the socket file does not linger.
			if conn, err := net.Dial("unix", s.sock); err == nil {
				conn.Close()
				t.Error("a new connection was accepted")
			}
			busy.body(t, []byte("second half\r\n"))
			if r := busy.reply(t); !strings.HasPrefix(r, "250 2.0.0 ") {
				t.Errorf("message in progress: %q", r)
			}
			if r := busy.reply(t); !strings.HasPrefix(r, "421 4.3.2 ") {
				t.Errorf("after it: %q", r)
			}
			busy.end(t)
			if status := s.wait(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
			if _, err := os.Lstat(s.sock); !os.IsNotExist(err) {
				t.Errorf("socket file: %v", err)
			}
			checkStored(t, oneMessage(t, s.maildir("user")), trace{
				sender: "sender@example.net", recipient: "user@example.org", helo: "client.example.net", with: "LMTP",
			}, []byte(header+"\r\nfirst half\r\nsecond half\r\n"))
		})
	}
}

// TestSecondSignal: the second one does not wait, and nothing half-done stays.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "user")
	makeMaildir(t, s.maildir("user"), &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})
	busy, waiting := open(t, s.sock, "user@example.org"), idle(t, s.sock)
	s.signal(t, syscall.SIGTERM)
	if r := waiting.reply(t); !strings.HasPrefix(r, "421 4.3.2 ") {
		t.Errorf("idle session: %q", r)
	}
	s.signal(t, syscall.SIGTERM)
	if status := s.wait(t); status == 0 {
		t.Error("exit status 0 although a transaction was cut off")
	}
	busy.conn.(*net.UnixConn).CloseWrite()
	var buf [512]byte
	for n, err := busy.conn.Read(buf[:]); err == nil; n, err = busy.conn.Read(buf[:]) {
		if strings.HasPrefix(string(buf[:n]), "2") {
			t.Errorf("cut-off transaction: %q", buf[:n])
		}
	}
	if n := len(messages(t, s.maildir("user"))); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// TestReload: SIGHUP takes a good configuration and refuses a bad one.
func TestReload(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "old", "new")
	users := filepath.Join(s.dir, "users")
	second := filepath.Join(s.dir, "users2")
	before := readFile(t, s.config)
	old, fresh, _ := strings.Cut(readFile(t, users), "\n")
	writeFile(t, users, old+"\n")
	writeFile(t, second, old+"\n"+fresh)
	reload := func() {
		t.Helper()
		s.signal(t, syscall.SIGHUP)
		s.awaitState(t, "RELOADING=1")
		s.awaitState(t, "READY=1")
	}
	rcpt := func(code, to string) {
		t.Helper()
		c := dial(t, s.sock)
		c.expect(t, "250", "LHLO client.example.net")
		c.expect(t, "250", "MAIL FROM:<>")
		c.expect(t, code, "RCPT TO:<"+to+">")
		c.expect(t, "221", "QUIT")
	}
	// The user file alone has changed. A message under way is not disturbed.
	busy := open(t, s.sock, "old@example.org")
	reload()
	rcpt("250", "old@example.org")
	rcpt("550 5.1.1", "new@example.org")

	writeFile(t, s.config, strings.Replace(before, users, second, 1))
	reload()
	rcpt("250", "new@example.org")
	busy.body(t, []byte("second half\r\n"))
	if r := busy.reply(t); !strings.HasPrefix(r, "250 2.0.0 ") {
		t.Errorf("message in progress: %q", r)
	}
	oneMessage(t, s.maildir("old"))

	for _, bad := range []struct{ name, config, says string }{
		{"unknown key", before + "\n[mailbox]\npaht = \"~/Mail\"\n", `path`},
		{"no TOML", "hostname = \n", `lmtpd\.toml:1`},
		{"user file missing", strings.Replace(before, users, users+".missing", 1), `users\.missing`},
	} {
		t.Run(bad.name, func(t *testing.T) {
			from := s.stderr.count()
			writeFile(t, s.config, bad.config)
			waiting := idle(t, s.sock)
			reload()
			waiting.expect(t, "250", "NOOP") // nothing has changed for it
			s.stderr.awaitFrom(t, from, bad.says)
			rcpt("250", "new@example.org")
		})
	}
	// And a good one again.
	writeFile(t, s.config, before)
	reload()
	rcpt("550 5.1.1", "new@example.org")
	s.stop(t)
}
