package delivery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// QuotaPolicy says how much mailboxes may hold and what happens to mail that does not
// fit. The limits of a user record (quota_rule, as Dovecot has it) come before those
// here. Its zero value limits nobody, but keeps accounts where somebody else does.
type QuotaPolicy struct {
	Octets   int64    // 0: no limit
	Messages int64    // 0: no limit
	Grace    bool     // what is not over quota may go over it with one message
	Ignore   []string // folders, as a person writes them, that do not count
	Over     OverQuota
	// Patience is how long OverTemporaryFirst asks to come again.
	Patience time.Duration
	// Thresholds are percentages of a limit. Warn is called by a delivery that goes
	// past one of them, or of Notices, with the highest.
	Thresholds []int
	Warn       func(QuotaWarning)
	// Notices are sent by a delivery that goes past their threshold, once for each time
	// that a mailbox does. Commands runs their programs.
	Notices  []QuotaNotice
	Commands *command.Runner
}

// OverQuota is what is answered for a mailbox that is full.
type OverQuota int

const (
	OverTemporary      OverQuota = iota // 452 4.2.2: the client tries again
	OverPermanent                       // 552 5.2.2: the mail bounces
	OverTemporaryFirst                  // the first for Patience, then the second
)

var overQuotaNames = [...]string{OverTemporary: "temporary", OverPermanent: "permanent", OverTemporaryFirst: "temporary-first"}

// String returns the name used in the configuration.
func (o OverQuota) String() string {
	if o < 0 || int(o) >= len(overQuotaNames) {
		return fmt.Sprintf("over_quota(%d)", int(o))
	}
	return overQuotaNames[o]
}

// UnmarshalText reads temporary, permanent or temporary-first.
func (o *OverQuota) UnmarshalText(text []byte) error {
	for i, name := range overQuotaNames {
		if name == string(text) {
			*o = OverQuota(i)
			return nil
		}
	}
	return fmt.Errorf("over_quota %q is none of temporary, permanent, temporary-first", text)
}

// QuotaWarning tells that a mailbox has gone past a threshold.
type QuotaWarning struct {
	User    *userdb.User
	Address string // that the message was for
	Percent int    // the threshold
	Usage   maildir.Usage
	Limit   maildir.Quota
}

// QuotaChecker is what a CopyWriter may do besides: say whether a message of size
// octets would fit. maildir.Writer does it.
type QuotaChecker interface {
	CheckQuota(ctx context.Context, t maildir.Target, size int64) (maildir.Usage, error)
}

// errFull is the error of a full mailbox when it is to bounce.
var errFull = errors.New("mailbox is full, and that is permanent")

// checkAtRcpt is how long RCPT waits for the answer to whether there is room: a home
// that hangs must not hold up the recipients behind it. The delivery asks again.
const checkAtRcpt = 2 * time.Second

// limits are those of a user. The error is userdb.ErrBadRecord.
func (a *Agent) limits(r *recipient) (*maildir.Quota, error) {
	p := a.Quota
	if p == nil {
		return nil, nil
	}
	q := &maildir.Quota{Octets: p.Octets, Messages: p.Messages, Grace: p.Grace}
	for _, name := range p.Ignore {
		if dir := a.Folders.directory(name); dir != "" {
			q.Ignore = append(q.Ignore, dir)
		}
	}
	if rule := r.user.Extra["quota_rule"]; rule != "" {
		if err := parseQuotaRule(rule, q); err != nil {
			return nil, fmt.Errorf("%w: user %q of %s: %w", userdb.ErrBadRecord, r.user.Name, r.user.Source, err)
		}
	}
	return q, nil
}

// parseQuotaRule reads Dovecot's "*:storage=1G:messages=1000" and "*:bytes=1048576".
// A rule for one folder, or relative to another, is not for a delivery to apply.
func parseQuotaRule(rule string, q *maildir.Quota) error {
	bad := func(what string) error { return fmt.Errorf("quota_rule=%s: %s", rule, what) }
	box, rest, _ := strings.Cut(rule, ":")
	if box != "*" {
		return bad(`it begins with "*:"; rules for single folders are not known`)
	}
	for part := range strings.SplitSeq(rest, ":") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "storage":
			q.Octets, err = parseAmount(value, 1<<10)
		case "bytes":
			q.Octets, err = parseAmount(value, 1)
		case "messages":
			q.Messages, err = parseAmount(value, 1)
		default:
			return bad(fmt.Sprintf("%q is not known; write storage=, bytes= or messages=", key))
		}
		if err != nil {
			return bad(fmt.Sprintf("%s: %v", key, err))
		}
	}
	return nil
}

// parseAmount reads a number with B, K, M, G or T behind it; unit is that of none.
func parseAmount(s string, unit int64) (int64, error) {
	if n := len(s); n > 0 {
		if i := strings.IndexByte("BKMGT", s[n-1]&^0x20); i >= 0 && s[n-1] >= 'A' {
			s, unit = s[:n-1], 1<<(10*i)
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is no amount; write 500M or 2G", s)
	}
	return n * unit, nil
}

// hasRoom asks at RCPT, with the size that MAIL has declared. Whatever it cannot find
// out is left to the delivery.
func (a *Agent) hasRoom(ctx context.Context, r *recipient, size int64) error {
	checker, ok := a.Writer.(QuotaChecker)
	if !ok || a.Quota == nil {
		return nil
	}
	quota, err := a.limits(r)
	if err != nil || quota.Octets == 0 && quota.Messages == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkAtRcpt)
	defer cancel()
	t := maildir.Target{Owner: r.owner(), Root: r.root, Path: r.path, Quota: quota, Account: r.addr.String()}
	if !a.checks.enter() {
		return nil
	}
	answer := make(chan error, 1)
	go func() {
		defer a.checks.leave()
		_, err := checker.CheckQuota(ctx, t, size)
		answer <- err
	}()
	select {
	case err = <-answer:
	case <-ctx.Done():
		return nil
	}
	if errors.Is(err, maildir.ErrQuota) || errors.Is(err, maildir.ErrQuotaSize) {
		return a.judge(err)
	}
	return nil
}

// gate bounds how many checks may hang at a time. Its zero value is open.
type gate struct{ inside atomic.Int32 }

const maxChecks = 64

func (g *gate) enter() bool {
	if g.inside.Add(1) <= maxChecks {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() { g.inside.Add(-1) }

// judge makes the error of a full mailbox permanent where the policy says so.
func (a *Agent) judge(err error) error {
	over := OverTemporary
	if a.Quota != nil {
		over = a.Quota.Over
	}
	if over == OverTemporary || !errors.Is(err, maildir.ErrQuota) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	if over == OverTemporaryFirst {
		var q *maildir.QuotaError
		if !errors.As(err, &q) || q.Since.IsZero() || a.Trace.now().Sub(q.Since) < a.Quota.Patience {
			return err
		}
	}
	return fmt.Errorf("%w: %w", errFull, err)
}

// warn tells about the highest threshold that a copy has gone past, and returns that;
// nil if there is none.
func (a *Agent) warn(r *recipient, t *maildir.Target, res maildir.Result) *QuotaWarning {
	p := a.Quota
	if p == nil || t.Quota == nil || res.Err != nil || res.Found || res.Usage == (maildir.Usage{}) {
		return nil
	}
	after := percent(res.Usage, t.Quota)
	before := percent(maildir.Usage{Octets: res.Usage.Octets - res.Size, Messages: res.Usage.Messages - 1}, t.Quota)
	passed := 0
	look := func(threshold int) {
		if before < float64(threshold) && after >= float64(threshold) {
			passed = max(passed, threshold)
		}
	}
	for _, th := range p.Thresholds {
		look(th)
	}
	for i := range p.Notices {
		look(p.Notices[i].At)
	}
	if passed == 0 {
		return nil
	}
	w := &QuotaWarning{User: r.user, Address: r.addr.String(), Percent: passed, Usage: res.Usage, Limit: *t.Quota}
	if p.Warn != nil {
		p.Warn(*w)
	}
	return w
}

// percent is how full a mailbox is, by the limit that it is nearer to.
func percent(u maildir.Usage, q *maildir.Quota) (p float64) {
	if q.Octets > 0 {
		p = 100 * float64(u.Octets) / float64(q.Octets)
	}
	if q.Messages > 0 {
		p = max(p, 100*float64(u.Messages)/float64(q.Messages))
	}
	return p
}
