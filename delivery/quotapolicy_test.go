package delivery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOverQuota: what a full mailbox is answered, at RCPT with the size of MAIL and
// after the data, by each policy; and that its neighbour gets his copy each time.
func TestOverQuota(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy QuotaPolicy
		since  time.Duration // the mailbox has been full for; 0: it becomes so now
		want   string
	}{
		{"temporary", QuotaPolicy{Over: OverTemporary}, 1000 * time.Hour, "452 4.2.2 Mailbox is full"},
		{"permanent", QuotaPolicy{Over: OverPermanent}, 0, "552 5.2.2 Mailbox is full"},
		{"temporary-first, early", QuotaPolicy{Over: OverTemporaryFirst, Patience: 72 * time.Hour}, 0, "452 4.2.2 Mailbox is full"},
		{"temporary-first, in between", QuotaPolicy{Over: OverTemporaryFirst, Patience: 72 * time.Hour}, 71 * time.Hour, "452 4.2.2 Mailbox is full"},
		{"temporary-first, late", QuotaPolicy{Over: OverTemporaryFirst, Patience: 72 * time.Hour}, 73 * time.Hour, "552 5.2.2 Mailbox is full"},
	} {
		s := newSite(t, "bob", "ann")
		s.agent.Quota = &test.policy
		s.agent.Quota.Octets = 2000
		s.start(t)
		c := s.client(t)
		body := hello + strings.Repeat("0123456789\r\n", 100)
		wantReplies(t, c.Send("", []string{"bob@example.org"}, body, 1), "250 2.0.0")
		if test.since > 0 {
			wantReplies(t, c.Send("", []string{"bob@example.org"}, body, 1), "") // whatever: it notes the time
			at := time.Now().Add(-test.since)
			if err := os.Chtimes(filepath.Join(s.maildir("bob"), "lmtpd-overquota"), at, at); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := os.RemoveAll(s.maildir("ann")); err != nil {
				t.Fatal(err)
			}
			wantReplies(t, c.Send("", []string{"bob@example.org", "ann@example.org"}, body, 2), test.want, "250 2.0.0")
			if err := os.RemoveAll(s.maildir("ann")); err != nil {
				t.Fatal(err)
			}
			c.Cmd("250", "MAIL FROM:<> SIZE=1500")
			if got := c.Cmd("", "RCPT TO:<bob@example.org>"); !strings.HasPrefix(got, test.want) {
				t.Errorf("%s: RCPT: %q, want %s", test.name, got, test.want)
			}
			c.Cmd("250", "RCPT TO:<ann@example.org>")
			c.Cmd("250", "RSET")
			c.Cmd("250", "MAIL FROM:<>") // no size: nothing to refuse yet
			c.Cmd("250", "RCPT TO:<bob@example.org>")
			c.Cmd("250", "RSET")
		}
		if n := len(read(t, s.maildir("bob"))); n != 1 {
			t.Errorf("%s: %d messages", test.name, n)
		}
		// Room ends it: the time begins anew when it is full the next time.
		if err := os.RemoveAll(filepath.Join(s.maildir("bob"), "cur")); err != nil { // read has moved it there
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(s.maildir("bob"), "maildirsize")); err != nil {
			t.Fatal(err)
		}
		wantReplies(t, c.Send("", []string{"bob@example.org"}, body, 1), "250 2.0.0")
		want := "452 4.2.2"
		if test.policy.Over == OverPermanent {
			want = "552 5.2.2"
		}
		wantReplies(t, c.Send("", []string{"bob@example.org"}, body, 1), want)
	}
}

// TestQuotaGrace: a mailbox that is not full takes one message more, however large, and
// none after it.
func TestQuotaGrace(t *testing.T) {
	s := newSite(t, "bob")
	s.agent.Quota = &QuotaPolicy{Octets: 1000, Messages: 3, Grace: true}
	s.start(t)
	c := s.client(t)
	body := hello + strings.Repeat("0123456789\r\n", 1000)
	wantReplies(t, c.Send("", []string{"bob@example.org"}, hello, 1), "250 2.0.0")
	c.Cmd("250", "MAIL FROM:<> SIZE=20000")
	c.Cmd("250", "RCPT TO:<bob@example.org>")
	c.Cmd("250", "RSET")
	wantReplies(t, c.Send("", []string{"bob@example.org"}, body, 1), "250 2.0.0")
	c.Cmd("250", "MAIL FROM:<>") // nothing fits any more, of any size
	c.Cmd("452 4.2.2", "RCPT TO:<bob@example.org>")
	if n := len(read(t, s.maildir("bob"))); n != 2 {
		t.Errorf("%d messages", n)
	}
}
