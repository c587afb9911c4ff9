package test

import (
	"strings"
	"testing"
)

// TestPostfixVerify: with main.cf.verify Postfix asks lmtpd before it takes a
// message, and no probe leaves anything behind.
func TestPostfixVerify(t *testing.T) {
	t.Parallel()
	s := startVirtualSite(t, []string{"user"}, contrib(t, "main.cf.verify"))
	c := dial(t, s.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "250", "RCPT TO:<user@example.org>")
	if r := c.cmd(t, "RCPT TO:<unknown@example.org>"); !strings.HasPrefix(r, "550 5.1.1 ") || !strings.HasSuffix(r, "No such user") {
		t.Errorf("unknown recipient: %q", r)
	}
	c.expect(t, "221", "QUIT")
	if n := len(messages(t, s.maildir("user"))); n != 0 {
		t.Errorf("%d messages from a probe", n)
	}

	// Down: the recipient that Postfix has not asked for yet is not refused for good.
	s.agent.stop(t)
	c = dial(t, s.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "450", "RCPT TO:<other@example.org>")
	c.expect(t, "221", "QUIT")
}
