package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

func quotaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "show what mailboxes hold, or count it anew",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return &exitError{exitUsage, `write "lmtpd quota get" or "lmtpd quota recalc", and addresses or --all`}
		},
	}
	const codes = "Run it as root, or as the owner of the mail. The exit code is\n0, 67 no such user, 69 a user database cannot name its users, 75 a mailbox could not be\nread, 78 bad configuration; one stands for all."
	get := &cobra.Command{
		Use:   "get {--all | ADDRESS...}",
		Short: "show what mailboxes hold and may hold",
		Long:  "Show for each mailbox what it holds and may hold, by its maildirsize or, where that\nis missing, by counting. Nothing is written. " + codes,
	}
	recalc := &cobra.Command{
		Use:   "recalc {--all | ADDRESS...}",
		Short: "count mailboxes and write their maildirsize anew",
		Long:  "Count what is in each mailbox and its folders and write its maildirsize anew, as its\nowner. A mailbox without a limit and without the file gets none. " + codes,
	}
	asJSON := get.Flags().Bool("json", false, "print a line of JSON for each mailbox, for programs")
	for _, sub := range []*cobra.Command{get, recalc} {
		path := configFlag(sub)
		all := sub.Flags().Bool("all", false, "of all users, with a progress bar if standard error is a terminal")
		sub.ValidArgsFunction = cobra.NoFileCompletions
		sub.RunE = func(sub *cobra.Command, addresses []string) error {
			if *all == (len(addresses) > 0) {
				return &exitError{exitUsage, "write either addresses or --all"}
			}
			ctx, stop := untilInterrupted()
			defer stop()
			q := &quotaRun{out: sub.OutOrStdout(), err: sub.ErrOrStderr(), all: *all, recount: sub == recalc, json: *asJSON}
			return q.run(ctx, *path, addresses)
		}
		cmd.AddCommand(sub)
	}
	return cmd
}

// quotaRun is one run of lmtpd quota.
type quotaRun struct {
	out, err  io.Writer
	all       bool
	recount   bool // and write what was counted
	json      bool
	agent     *delivery.Agent
	mailboxes mailboxes

	bar      *progressBar
	code     int
	seen     map[string]bool // mailboxes
	counted  int
	failures int
}

// quotaAtOnce is how many mailboxes are looked at side by side.
const quotaAtOnce = 16

func (q *quotaRun) run(ctx context.Context, path string, addresses []string) error {
	c, agent, err := loadAgent(path, func(*config) *slog.Logger { return slog.New(slog.DiscardHandler) })
	if err != nil {
		return err
	}
	q.agent, q.mailboxes, q.seen = agent, newMailboxes(c, path, "/proc"), map[string]bool{}
	var list []userdb.Address
	if q.all {
		list = q.everybody(ctx)
		q.bar = newProgressBar(q.err, "users", len(list))
	}
	for _, text := range addresses {
		a, err := agent.Rules.ParseString(trimBrackets(text))
		if err != nil {
			q.fail(text, exitData, err)
			continue
		}
		list = append(list, a)
	}
	if !q.recount && !q.json && len(list) > 0 {
		q.row("ADDRESS", "HOLDS", "LIMIT", "", "MESSAGES", "LIMIT", "")
	}
	for done := 0; done < len(list) && ctx.Err() == nil; {
		part := list[done:min(done+quotaAtOnce, len(list))]
		for _, m := range q.ask(ctx, part) {
			q.show(&m)
		}
		done += len(part)
		q.bar.set(done, q.failures)
	}
	q.bar.clear()
	if q.all && q.recount {
		fmt.Fprintf(q.out, "%d mailboxes counted, %d failed\n", q.counted, q.failures)
	}
	if err := context.Cause(ctx); err != nil {
		return &exitError{exitTemporary, "interrupted"}
	}
	if q.code != exitOK {
		return &exitError{code: q.code}
	}
	return nil
}

// everybody lists all users, by domain and name.
func (q *quotaRun) everybody(ctx context.Context) (list []userdb.Address) {
	lister, ok := q.agent.Users.(userdb.Lister)
	if !ok {
		q.fail(q.agent.Users.String(), exitUnavailable, userdb.ErrNotListed)
		return nil
	}
	for a, err := range lister.List(ctx) {
		switch {
		case errors.Is(err, userdb.ErrNotListed):
			q.fail("", exitUnavailable, fmt.Errorf("%w: name its mailboxes as addresses", err))
		case err != nil:
			q.fail("", exitTemporary, err)
		default:
			list = append(list, a)
		}
	}
	slices.SortFunc(list, func(a, b userdb.Address) int {
		return strings.Compare(a.Domain+"\x00"+a.Local, b.Domain+"\x00"+b.Local)
	})
	return list
}

// ask asks about some mailboxes at once and returns the answers in their order.
func (q *quotaRun) ask(ctx context.Context, part []userdb.Address) []delivery.MailboxAccount {
	answers := make([]delivery.MailboxAccount, len(part))
	var all sync.WaitGroup
	for i, a := range part {
		all.Go(func() {
			one, cancel := context.WithTimeout(ctx, explainPatience)
			defer cancel()
			answers[i] = q.agent.Account(one, a, func(ctx context.Context, t maildir.Target) (maildir.Account, error) {
				w, t, err := q.mailboxes.as(t)
				switch {
				case err != nil:
					return maildir.Account{}, err
				case q.recount:
					return w.Recount(ctx, t)
				}
				return w.Account(ctx, t)
			})
		})
	}
	all.Wait()
	return answers
}

// fail notes a failure; "75" stands for all others if there is one.
func (q *quotaRun) fail(what string, code int, err error) {
	q.bar.clear()
	if what != "" {
		what = printable(what) + ": "
	}
	fmt.Fprintf(q.err, "lmtpd: %s%s\n", what, printable(err.Error()))
	if q.code == exitOK || code == exitTemporary {
		q.code = code
	}
	q.failures++
}

// quotaColumns are those of lmtpd quota get.
const quotaColumns = "%-36s %11s %11s %5s %9s %9s %5s"

func (q *quotaRun) row(cells ...any) {
	fmt.Fprintln(q.out, strings.TrimRight(fmt.Sprintf(quotaColumns, cells...), " "))
}

func (q *quotaRun) show(m *delivery.MailboxAccount) {
	address := m.Address.String()
	if q.all {
		if m.Mailbox != "" && q.seen[m.Mailbox] {
			return // under another address
		}
		q.seen[m.Mailbox] = true
	}
	if m.Transport != "" {
		if !q.all {
			q.fail(address, exitUnavailable, fmt.Errorf("its mail goes to transport %s: there is no mailbox here", m.Transport))
		}
		return
	}
	switch {
	case q.json:
		q.bar.clear()
		line, err := json.Marshal(newQuotaLine(m))
		if err == nil {
			fmt.Fprintf(q.out, "%s\n", line)
		}
	case m.Err != nil:
	case !q.recount:
		q.bar.clear()
		q.row(printable(address),
			delivery.RoughSize(m.Usage.Octets), limitText(m.Limit.Octets, delivery.RoughSize), percentText(m.Usage.Octets, m.Limit.Octets),
			fmt.Sprint(m.Usage.Messages), limitText(m.Limit.Messages, func(n int64) string { return fmt.Sprint(n) }), percentText(m.Usage.Messages, m.Limit.Messages))
	case !q.all:
		fmt.Fprintf(q.out, "%s: %d octets, %d messages\n", printable(address), m.Usage.Octets, m.Usage.Messages)
	}
	if m.Err == nil {
		q.counted++
		return
	}
	err := m.Err
	if errors.Is(err, syscall.EPERM) && os.Geteuid() != 0 {
		err = fmt.Errorf("%w; run this as root", err)
	}
	q.fail(address, exitCode(delivery.Outcome{Reply: m.Reply}), err)
}

// quotaLine is a mailbox in JSON. Fields are only ever added.
type quotaLine struct {
	Address       string     `json:"address"`
	User          string     `json:"user,omitempty"`
	Mailbox       string     `json:"mailbox,omitempty"`
	Octets        int64      `json:"octets"`
	OctetsLimit   int64      `json:"octets_limit"` // 0: none
	Messages      int64      `json:"messages"`
	MessagesLimit int64      `json:"messages_limit"`          // 0: none
	Counted       bool       `json:"counted"`                 // maildirsize could not be used
	RefusedSince  *time.Time `json:"refused_since,omitempty"` // mail
	Error         string     `json:"error,omitempty"`
}

func newQuotaLine(m *delivery.MailboxAccount) quotaLine {
	l := quotaLine{
		Address: m.Address.String(), Mailbox: m.Mailbox, Counted: m.Counted,
		Octets: m.Usage.Octets, OctetsLimit: m.Limit.Octets, Messages: m.Usage.Messages, MessagesLimit: m.Limit.Messages,
	}
	if m.User != nil {
		l.User = m.User.Name
	}
	if !m.Since.IsZero() {
		l.RefusedSince = &m.Since
	}
	if m.Err != nil {
		l.Error = m.Err.Error()
	}
	return l
}

func limitText(n int64, text func(int64) string) string {
	if n == 0 {
		return "-"
	}
	return text(n)
}

func percentText(n, limit int64) string {
	if limit == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*float64(n)/float64(limit))
}

// mailboxes chooses how this process looks at mailboxes: as their owners do.
type mailboxes struct {
	writer *maildir.Writer
	view   daemonView
}

func newMailboxes(c *config, path, proc string) mailboxes {
	return mailboxes{
		writer: &maildir.Writer{Hostname: c.Hostname, MinUID: c.minimumUID(), FileMode: os.FileMode(c.Mailbox.FileMode)},
		view:   newDaemonView(c, path, proc),
	}
}

// as gives mail that belongs to whoever runs lmtpd an owner where this is root, who
// would leave files there that lmtpd cannot read: the account of the running daemon, or
// else that of the mailbox.
func (m mailboxes) as(t maildir.Target) (*maildir.Writer, maildir.Target, error) {
	if t.Owner != nil || os.Geteuid() != 0 {
		return m.writer, t, nil
	}
	if t.Owner = m.view.owner(); t.Owner == nil {
		path := filepath.Join(t.Root, t.Path)
		info, err := os.Lstat(path)
		if errors.Is(err, os.ErrNotExist) {
			return m.writer, t, nil // it is empty
		}
		if err != nil {
			return nil, t, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || st.Uid == 0 {
			return m.writer, t, nil
		}
		t.Owner = &maildir.Owner{UID: st.Uid, GID: st.Gid}
	}
	return &maildir.Writer{Hostname: m.writer.Hostname, MinUID: 1, FileMode: m.writer.FileMode}, t, nil
}
