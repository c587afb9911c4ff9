package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// QuotaNotice says who is told that a mailbox has gone past a threshold: its user by a
// mail, or a program.
type QuotaNotice struct {
	At      int         // percent of a limit
	Mail    *NoticeText // nil: no mail
	Command []string    // nil: no program; see command.Expand and NoticeValues
}

// NoticeValues are the names that stand in braces in a NoticeText and in a Command:
// the address of the message that went past the threshold and the user's name; the
// threshold; octets and messages with their limits, 0 for none; used and limit are the
// octets as people write them.
var NoticeValues = []string{"address", "user", "percent", "octets", "octets_limit", "messages", "messages_limit", "used", "limit"}

func (w *QuotaWarning) values() map[string]string {
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	return map[string]string{
		"address": printable(w.Address), "user": printable(w.User.Name), "percent": strconv.Itoa(w.Percent),
		"octets": n(w.Usage.Octets), "octets_limit": n(w.Limit.Octets), "messages": n(w.Usage.Messages), "messages_limit": n(w.Limit.Messages),
		"used": RoughSize(w.Usage.Octets), "limit": RoughSize(w.Limit.Octets),
	}
}

// RoughSize is a number of octets as people compare them: "1.2 GiB".
func RoughSize(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// Bounds on notices.
const (
	maxNotices     = 64               // on their way at a time; one more is only logged
	noticePatience = 30 * time.Second // for a mailbox
)

// notices are those on their way. The zero value is ready.
type notices struct {
	now  atomic.Int32
	over sync.WaitGroup
}

// Wait returns when no notice is on its way any more. It is for the end of a program:
// no delivery may be on its way or begin.
func (a *Agent) Wait() { a.beside().Wait() }

func (a *Agent) beside() *sync.WaitGroup {
	if a.Beside != nil {
		return a.Beside
	}
	return &a.notices.over
}

// notify sends the notices of a threshold, after the reply and beside all else. t is
// the target of the copy that went past it.
func (a *Agent) notify(w *QuotaWarning, r *recipient, t *maildir.Target) {
	for i := range a.Quota.Notices {
		n := &a.Quota.Notices[i]
		if n.At != w.Percent {
			continue
		}
		if n.Mail != nil {
			a.background(w, "mail", func() (string, error) { return a.mailNotice(n.Mail, w, r, t) })
		}
		if len(n.Command) > 0 {
			a.background(w, "command", func() (string, error) { return a.runNotice(n.Command, w) })
		}
	}
}

func (a *Agent) background(w *QuotaWarning, by string, send func() (string, error)) {
	log := a.Log
	if log == nil {
		log = slog.Default()
	}
	log = log.With("mailbox", w.User.Name, "to", w.Address, "percent", w.Percent, "by", by)
	over := func(what string, err error) {
		if a.Noticed != nil {
			a.Noticed(by, err)
		}
		if err != nil {
			log.Warn("quota notice not sent", "error", err.Error())
			return
		}
		log.Info("quota notice sent", "file", what)
	}
	if a.notices.now.Add(1) > maxNotices {
		a.notices.now.Add(-1)
		over("", fmt.Errorf("%d are on their way", maxNotices))
		return
	}
	a.beside().Go(func() {
		defer a.notices.now.Add(-1)
		over(send())
	})
}

// mailNotice writes the mail into the mailbox that it is about. It goes by no transport
// and no filing rule, counts and is never refused by the quota, and is no reason for
// another notice.
func (a *Agent) mailNotice(text *NoticeText, w *QuotaWarning, r *recipient, of *maildir.Target) (file string, err error) {
	now := a.Trace.now()
	m := &message{id: a.newID(), received: "(quota notice)"}
	quota := *of.Quota
	quota.Exempt = true
	body, err := text.message(w, a.Trace.Hostname, m.id, now, a.Trace.CRLF)
	if err != nil {
		return "", err
	}
	target := maildir.Target{
		Owner: of.Owner, Root: of.Root, Path: of.Path, Account: of.Account, Quota: &quota,
		Header: a.Trace.header(m, &recipient{addr: r.addr}, now),
	}
	b := maildir.Body{Data: body, Size: int64(len(body))}
	if !a.Trace.CRLF {
		for _, c := range body {
			if c == '\n' {
				b.Lines++
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), noticePatience)
	defer cancel()
	b.Retain = func() func() { return func() {} } // nothing else uses it
	var res maildir.Result
	a.Writer.Deliver(ctx, b, []maildir.Target{target}, func(_ int, got maildir.Result) { res = got })
	return res.File, res.Err
}

// runNotice runs the program.
func (a *Agent) runNotice(argv []string, w *QuotaWarning) (string, error) {
	if a.Quota.Commands == nil {
		return "", errors.New("no program may be run")
	}
	argv, err := command.Expand(argv, w.values())
	if err != nil {
		return "", err
	}
	res, err := a.Quota.Commands.Run(context.Background(), argv, nil)
	if err == nil && res.Status != 0 {
		err = fmt.Errorf("%s: exit status %d, it said %+q", argv[0], res.Status, res.Output)
	}
	return argv[0], err
}
