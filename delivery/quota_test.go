package delivery

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

func TestParseQuotaRule(t *testing.T) {
	for _, test := range []struct {
		rule string
		want maildir.Quota
	}{
		{"*:storage=1G", maildir.Quota{Octets: 1 << 30, Messages: 7}},
		{"*:storage=100", maildir.Quota{Octets: 100 << 10, Messages: 7}},
		{"*:bytes=100", maildir.Quota{Octets: 100, Messages: 7}},
		{"*:bytes=2m:messages=5", maildir.Quota{Octets: 2 << 20, Messages: 5}},
		{"*:storage=3B:messages=0", maildir.Quota{Octets: 3}},
		{"*:storage=0", maildir.Quota{Messages: 7}},
	} {
		q := maildir.Quota{Octets: 9, Messages: 7}
		if err := parseQuotaRule(test.rule, &q); err != nil || q.Octets != test.want.Octets || q.Messages != test.want.Messages {
			t.Errorf("%s: %+v, %v", test.rule, q, err)
		}
	}
	for _, rule := range []string{"", "*", "*:", "Trash:storage=1G", "*:storage=", "*:storage=G", "*:storage=-1", "*:storage=1X", "*:storage=10%", "*:ignore", "*:bytes=9223372036854775807K", "*:messages=x"} {
		q := maildir.Quota{}
		if err := parseQuotaRule(rule, &q); err == nil {
			t.Errorf("%q: %+v", rule, q)
		}
	}
	if n, err := parseAmount("9223372036854775807", 1); n != math.MaxInt64 || err != nil {
		t.Error(n, err)
	}
}

func TestOverQuotaText(t *testing.T) {
	for _, o := range []OverQuota{OverTemporary, OverPermanent, OverTemporaryFirst} {
		var back OverQuota
		if err := back.UnmarshalText([]byte(o.String())); err != nil || back != o {
			t.Errorf("%v: %v, %v", o, back, err)
		}
	}
	var o OverQuota
	if err := o.UnmarshalText([]byte("never")); err == nil || OverQuota(9).String() != "over_quota(9)" {
		t.Error(err)
	}
}

func TestJudge(t *testing.T) {
	now := time.Now()
	full := func(since time.Time) error {
		return &maildir.Error{Op: maildir.OpQuota, Err: &maildir.QuotaError{Cause: maildir.ErrQuota, Since: since}}
	}
	for _, test := range []struct {
		policy *QuotaPolicy
		err    error
		want   string
	}{
		{nil, syscall.EDQUOT, "452 4.2.2"},
		{&QuotaPolicy{}, full(now.Add(-100 * time.Hour)), "452 4.2.2"},
		{&QuotaPolicy{Over: OverPermanent}, full(now), "552 5.2.2"},
		{&QuotaPolicy{Over: OverPermanent}, syscall.EDQUOT, "552 5.2.2"},
		{&QuotaPolicy{Over: OverPermanent}, syscall.ENOSPC, "452 4.3.1"},
		{&QuotaPolicy{Over: OverTemporaryFirst, Patience: time.Hour}, full(now.Add(-time.Minute)), "452 4.2.2"},
		{&QuotaPolicy{Over: OverTemporaryFirst, Patience: time.Hour}, full(now.Add(-2 * time.Hour)), "552 5.2.2"},
		{&QuotaPolicy{Over: OverTemporaryFirst, Patience: time.Hour}, full(time.Time{}), "452 4.2.2"},
		{&QuotaPolicy{Over: OverTemporaryFirst, Patience: time.Hour}, syscall.EDQUOT, "452 4.2.2"},
	} {
		a := &Agent{Quota: test.policy}
		if got := replyFor(a.judge(test.err)).Error(); !strings.HasPrefix(got, test.want) {
			t.Errorf("%+v, %v: %q", test.policy, test.err, got)
		}
	}
}

// TestQuota: one recipient's mailbox is full, the others' are not; at RCPT with the
// size that is declared, and after the data.
func TestQuota(t *testing.T) {
	s := newSite(t, "bob", "ann", "big")
	file, err := os.ReadFile(filepath.Join(s.dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	s.users(t, strings.Replace(string(file), s.home("big")+"::", s.home("big")+"::userdb_quota_rule=*:storage=1M", 1)+
		"odd@example.org:::::"+s.home("bob")+"::userdb_quota_rule=Trash:ignore\n")
	s.agent.Users = s.passwd(t)
	warnings := make(chan QuotaWarning, 10)
	s.agent.Quota = &QuotaPolicy{Octets: 2000, Thresholds: []int{50, 80}, Warn: func(w QuotaWarning) { warnings <- w }}
	s.start(t)
	c := s.client(t)
	body := hello + strings.Repeat("0123456789\r\n", 100)
	rcpts := []string{"bob@example.org", "ann@example.org"}
	wantReplies(t, c.Send("", rcpts, body, 2), "250 2.0.0", "250 2.0.0")
	for range 2 {
		if w := <-warnings; w.Percent != 50 || w.Usage.Messages != 1 || w.Limit.Octets != 2000 {
			t.Errorf("%+v", w)
		}
	}
	if err := os.RemoveAll(s.maildir("ann")); err != nil {
		t.Fatal(err)
	}
	wantReplies(t, c.Send("", rcpts, body, 2), "452 4.2.2 Mailbox is full", "250 2.0.0")
	c.Cmd("250", "MAIL FROM:<> SIZE=1500")
	c.Cmd("452 4.2.2 Mailbox is full", "RCPT TO:<bob@example.org>")
	c.Cmd("250", "RCPT TO:<big@example.org>")
	c.Cmd("250", "RSET")
	c.Cmd("250", "MAIL FROM:<> SIZE=3000")
	c.Cmd("552 5.2.3 Message is larger than this mailbox may hold", "RCPT TO:<bob@example.org>")
	c.Cmd("451 4.3.5", "RCPT TO:<odd@example.org>")
	c.Cmd("250", "RSET")
	c.Cmd("250", "MAIL FROM:<> SIZE=2000000")
	c.Cmd("552 5.2.3", "RCPT TO:<big@example.org>")
	if n := len(read(t, s.maildir("bob"))); n != 1 {
		t.Errorf("%d messages", n)
	}
	if log := s.log.String(); !strings.Contains(log, "octets of 2000") {
		t.Errorf("log: %s", log)
	}
}

// hungChecker never says whether there is room.
type hungChecker struct {
	nowhere
	asked chan struct{}
}

func (h hungChecker) CheckQuota(ctx context.Context, _ maildir.Target, _ int64) (maildir.Usage, error) {
	close(h.asked)
	select {} // not even at the end of ctx
}

// A home that hangs does not hold RCPT up.
func TestQuotaHangs(t *testing.T) {
	h := hungChecker{asked: make(chan struct{})}
	a := &Agent{Quota: &QuotaPolicy{Octets: 1}, Writer: h}
	ctx, cancel := context.WithCancel(context.Background())
	r := rcptOf("bob", "example.org")
	go func() { <-h.asked; cancel() }()
	if err := a.hasRoom(ctx, r, 10); err != nil {
		t.Error(err)
	}
	for range maxChecks {
		a.checks.enter()
	}
	if err := a.hasRoom(context.Background(), r, 10); err != nil || a.checks.enter() {
		t.Errorf("%v", err)
	}
	a = &Agent{Quota: &QuotaPolicy{Octets: 1}, Writer: nowhere{}} // one that cannot say
	if err := a.hasRoom(context.Background(), r, 10); err != nil {
		t.Error(err)
	}
	r.user = &userdb.User{Extra: map[string]string{"quota_rule": "x"}}
	a.Writer = hungChecker{}
	if err := a.hasRoom(context.Background(), r, 10); !errors.Is(err, userdb.ErrBadRecord) {
		t.Error(err)
	}
}
