package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sendUnseen runs a transaction up to the end of the message and is gone before
// any reply: what a client does whose host dies.
func sendUnseen(t *testing.T, s *plainSite, to string, message []byte) {
	t.Helper()
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "250", "RCPT TO:<"+to+">")
	c.expect(t, "354", "DATA")
	c.body(t, message)
	c.conn.Close()
}

// TestReplyLost: a message whose reply the client has not seen is not delivered
// twice when it comes again, not even when the daemon was killed in between. The
// same message sent twice on purpose is.
func TestReplyLost(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "user")
	message := []byte(header + "\r\nonce\r\n")
	sendUnseen(t, s, "user@example.org", message)
	s.agent.stderr.await(t, `to=user@example\.org.* status=delivered.* again=false`)

	s.agent.signal(t, syscall.SIGKILL)
	s.agent.wait(t)
	if err := os.Remove(filepath.Join(s.dir, "notify")); err != nil {
		t.Fatal(err)
	}
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, config: readFile(t, s.agent.config)})
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	if r := c.send(t, "sender@example.net", "", []string{"user@example.org"}, message, 1); !strings.HasPrefix(r[0], "250 2.0.0 ") {
		t.Errorf("sent again: %q", r)
	}
	s.agent.stderr.await(t, `to=user@example\.org.* status=delivered.* again=true`)
	if n := len(messages(t, s.maildir("user"))); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	// The client goes on, so it has seen that reply; what it sends now, it means.
	for range 2 {
		c.send(t, "sender@example.net", "", []string{"user@example.org"}, message, 1)
	}
	c.expect(t, "221", "QUIT")
	if n := len(messages(t, s.maildir("user"))); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
	s.stop(t)
}

// TestFilingAndQuota: a message is filed by its header, and a full mailbox is
// answered at RCPT and after the data, for itself alone.
func TestFilingAndQuota(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "full", "other")
	writeFile(t, s.agent.config, readFile(t, s.agent.config)+`
[mailbox]
quota = "4 KiB"
[[filing]]
field = "X-Spam-Flag"
value = "yes"
folder = "Junk"
create = true
`)
	s.agent.signal(t, syscall.SIGHUP)
	s.agent.awaitState(t, "RELOADING=1")
	s.agent.awaitState(t, "READY=1")
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	c.send(t, "", "", []string{"other@example.org"}, []byte(header+"X-Spam-Flag: YES\r\n\r\nbuy\r\n"), 1)
	oneMessage(t, filepath.Join(s.maildir("other"), ".Junk"))

	big := []byte(header + "\r\n" + strings.Repeat("0123456789abcde\r\n", 200))
	c.send(t, "", "", []string{"full@example.org"}, big, 1)
	both := []string{"full@example.org", "other@example.org"}
	if r := c.send(t, "", "", both, big[:len(header)+2+17*50], 2); len(r) == 2 {
		if !strings.HasPrefix(r[0], "452 4.2.2 ") || !strings.HasPrefix(r[1], "250 2.0.0 ") {
			t.Errorf("one full, one not: %q", r)
		}
	}
	c.expect(t, "250", "MAIL FROM:<> SIZE=1000")
	c.expect(t, "452 4.2.2", "RCPT TO:<full@example.org>")
	c.expect(t, "250", "RCPT TO:<other@example.org>")
	c.expect(t, "221", "QUIT")
	if n := len(messages(t, s.maildir("full"))); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
	s.stop(t)
}
