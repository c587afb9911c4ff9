package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain ADDRESS...",
		Short: "show where mail for an address would go, and what is in its way",
		Long: "Look addresses up as the daemon does and show each step: the user databases and what\nthey say, the user, the mailbox, the directories on the way to it, what is in the way of a\n" +
			"delivery, and the reply that a client would get. Nothing is written. Run it as root: it\nlooks at mailboxes as their owners do, and at what a running daemon sees of them. The exit\n" +
			"code is that of lmtpd deliver.",
		Args: cobra.MinimumNArgs(1),
	}
	path := configFlag(cmd)
	octets := size(0)
	cmd.Flags().Var(&sizeFlag{&octets}, "size", "of a message of this `SIZE`, such as \"10 MiB\"")
	cmd.RunE = func(cmd *cobra.Command, addresses []string) error {
		ctx, stop := untilInterrupted()
		defer stop()
		return explain(ctx, cmd.OutOrStdout(), *path, "/proc", int64(octets), addresses)
	}
	return cmd
}

// explain prints what would become of mail of size octets (0: of any) for the addresses.
// proc is where the running daemon is looked for.
func explain(ctx context.Context, out io.Writer, path, proc string, size int64, addresses []string) error {
	c, agent, err := loadAgent(path, func(*config) *slog.Logger { return slog.New(slog.DiscardHandler) })
	if err != nil {
		return err
	}
	e := &explainer{out: out, config: c, agent: agent, size: size, mailboxes: newMailboxes(c, path, proc)}
	return e.all(ctx, addresses)
}

// explainer shows what would become of mail.
type explainer struct {
	out    io.Writer
	config *config
	agent  *delivery.Agent
	size   int64 // of the message; 0: any
	mailboxes
}

// explainPatience is how long a database, or a file system that hangs, may take.
const explainPatience = 30 * time.Second

func (e *explainer) all(ctx context.Context, addresses []string) error {
	asked := &askedDatabases{}
	e.agent.Users = asked.watch(e.agent.Users)
	code := exitOK
	for i, address := range addresses {
		if i > 0 {
			fmt.Fprintln(e.out)
		}
		asked.answers = nil
		one, cancel := context.WithTimeout(ctx, explainPatience)
		x := e.agent.Explain(one, trimBrackets(address), e.size, e)
		cancel()
		e.show(address, &x, asked)
		if c := exitCode(delivery.Outcome{Reply: x.Reply}); code == exitOK || c == exitTemporary {
			code = c
		}
	}
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

// as is that of mailboxes, but for mailboxes of root: what root sees is noted as such.
func (e *explainer) as(t maildir.Target) (*maildir.Writer, maildir.Target) {
	if t.Owner == nil && os.Geteuid() == 0 {
		// The daemon's own mail: as root everything would look fine.
		if t.Owner = e.view.owner(); t.Owner != nil {
			return &maildir.Writer{MinUID: 1}, t
		}
	}
	return e.writer, t
}

// Account says what a mailbox holds, for delivery.Looker.
func (e *explainer) Account(ctx context.Context, t maildir.Target) (maildir.Account, error) {
	writer, t := e.as(t)
	return writer.Account(ctx, t)
}

// Probe looks at a mailbox as its owner does, and as the running daemon does.
func (e *explainer) Probe(ctx context.Context, t maildir.Target) maildir.Probe {
	writer, t := e.as(t)
	p := writer.Probe(ctx, t)
	if p.Err == nil {
		p.Err = e.view.compare(t.Root)
	}
	return p
}

// line prints one finding; an empty label continues the one before.
func (e *explainer) line(label, format string, a ...any) {
	fmt.Fprintf(e.out, "  %-9s %s\n", label, printable(fmt.Sprintf(format, a...)))
}

func (e *explainer) show(address string, x *delivery.Explanation, asked *askedDatabases) {
	fmt.Fprintf(e.out, "%s\n", printable(address))
	if errors.Is(x.Err, userdb.ErrBadAddress) {
		e.line("address", "%v", x.Err)
		e.line("reply", "%s", x.Reply.Error())
		return
	}
	text := fmt.Sprintf("user %q", x.Address.Local)
	if x.Address.Detail != "" {
		text += fmt.Sprintf(", detail %q", x.Address.Detail)
	}
	if x.Address.Domain != "" {
		text += fmt.Sprintf(", domain %q", x.Address.Domain)
	} else {
		text += ", no domain"
	}
	e.line("address", "%s", text)
	label := "asked"
	for _, a := range asked.inOrder(x.Address) {
		e.line(label, "%s", a)
		label = ""
	}
	if u := x.User; u != nil {
		e.line("user", "%s", describeUser(u))
	}
	if x.Transport != "" {
		e.line("transport", "%s: %s", x.Transport, e.config.describeTransport(x.Transport, x.Host))
		if x.Rcpt != x.Address.String() {
			e.line("", "as %s", x.Rcpt)
		}
	}
	if t := x.Target; t != nil {
		from := "mailbox.path " + e.config.Mailbox.Path
		if x.User.Mail != "" {
			from = "the user's record, " + x.User.Mail
		}
		e.line("mailbox", "%s (from %s)", filepath.Join(t.Root, t.Path), from)
		if e.config.Mailbox.SingleInstance {
			e.line("", "one file with the copies of others who have this owner (mailbox.single_instance)")
		}
		e.folder(x)
		e.disk(t, &x.Probe)
	}
	if x.Account != nil {
		e.quota(x.Account)
	}
	label = "obstacle"
	if x.Err == nil {
		label = "note"
	}
	for _, hint := range e.obstacles(x) {
		e.line(label, "%s", hint)
		label = ""
	}
	reply := strings.Replace(x.Reply.Error(), " OK ID ", " OK ", 1)
	if x.Err == nil && x.Transport != "" {
		reply = e.config.transportReply(x.Transport, reply)
	}
	e.line("reply", "%s", reply)
}

func describeUser(u *userdb.User) string {
	text := fmt.Sprintf("%s of %s", u.Name, u.Source)
	switch o := u.Owner; {
	case o == nil:
		text += ", mail belongs to whom lmtpd runs as"
	case len(o.Groups) > 0:
		text += fmt.Sprintf(", uid %d, gid %d, groups %s", o.UID, o.GID, strings.Trim(fmt.Sprint(o.Groups), "[]"))
	default:
		text += fmt.Sprintf(", uid %d, gid %d", o.UID, o.GID)
	}
	if u.Home != "" {
		return text + ", home " + u.Home
	}
	return text + ", no home"
}

func (e *explainer) folder(x *delivery.Explanation) {
	switch t := x.Target; {
	case x.Address.Detail == "" || t.Folder == "" && !e.agent.Folders.Detail:
	case t.Folder == "":
		e.line("folder", "INBOX: %q cannot name a folder", x.Address.Detail)
	case x.Probe.Folder == t.Folder:
		e.line("folder", "%s", t.Folder)
	case x.Probe.Err == nil:
		e.line("folder", "INBOX: there is no folder %s", t.Folder)
	}
}

// disk lists the directories from / to the mailbox.
func (e *explainer) disk(t *maildir.Target, p *maildir.Probe) {
	label := "on disk"
	path := filepath.Join(t.Root, t.Path)
	for i := 0; i <= len(path); i++ {
		if i > 0 && i < len(path) && path[i] != '/' {
			continue
		}
		dir := path[:max(i, 1)]
		text, there := describeDirectory(dir)
		if dir == p.Makes {
			text = fmt.Sprintf("%-11s %-11s %s", "to be made", "", dir)
		}
		e.line(label, "%s", text)
		label = ""
		if !there {
			return
		}
	}
	if p.Err == nil && p.Free > 0 {
		e.line("", "%s free", size(p.Free&^(1<<20-1)))
	}
}

// quota says what a mailbox holds, and may hold.
func (e *explainer) quota(a *maildir.Account) {
	text := fmt.Sprintf("holds %s in %d messages", size(a.Usage.Octets), a.Usage.Messages)
	if a.Counted {
		text += " (counted: there is no maildirsize that could be used)"
	}
	e.line("quota", "%s", text)
	switch l := a.Limit; {
	case l.Octets == 0 && l.Messages == 0:
		e.line("", "no limit")
	case l.Messages == 0:
		e.line("", "limit %s: %s", size(l.Octets), percentText(a.Usage.Octets, l.Octets))
	case l.Octets == 0:
		e.line("", "limit %d messages: %s", l.Messages, percentText(a.Usage.Messages, l.Messages))
	default:
		e.line("", "limit %s: %s, and %d messages: %s", size(l.Octets), percentText(a.Usage.Octets, l.Octets), l.Messages, percentText(a.Usage.Messages, l.Messages))
	}
	if !a.Since.IsZero() {
		e.line("", "full: mail is refused since %s", a.Since.Format(time.RFC3339))
	}
}

func describeDirectory(path string) (text string, there bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Sprintf("%-23s %s", plainError(err), path), false
	}
	owner := ""
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	}
	text = fmt.Sprintf("%-11s %-11s %s", info.Mode(), owner, path)
	if info.Mode()&os.ModeSymlink != 0 {
		if to, err := os.Readlink(path); err == nil {
			text += " -> " + to
		}
	}
	return text, true
}

// obstacles are the causes of a refusal, the likely ones explained.
func (e *explainer) obstacles(x *delivery.Explanation) (list []string) {
	if x.Err != nil {
		list = append(list, x.Err.Error())
	}
	t := x.Target
	if t == nil {
		return append(list, e.lookupHints(x)...)
	}
	switch {
	case errors.Is(x.Err, syscall.EPERM) && os.Geteuid() != 0:
		list = append(list, fmt.Sprintf("uid %d cannot look as another user does; run this as root", os.Geteuid()))
	case errors.Is(x.Err, maildir.ErrRoot):
		list = append(list, missingRoot(t.Root))
	case errors.Is(x.Err, syscall.ELOOP):
		list = append(list, "below "+t.Root+" no symbolic link is followed: its owner could point it anywhere")
	case errors.Is(x.Err, maildir.ErrOwner):
		list = append(list, "minimum_uid of the [[userdb]] says which accounts get mail")
	}
	if os.Geteuid() == 0 && len(e.view.writers()) == 0 {
		if x.User.Owner == nil {
			list = append(list, "lmtpd is not running: looked at as root, who may do more than its user")
		}
		list = append(list, fmt.Sprintf("lmtpd %s is not running: whether its service may write here (ProtectHome=, ReadWritePaths=) does not show before it does; see systemctl cat %s", e.view.role, e.view.unit()))
	}
	return list
}

// missingRoot tells a file system that is not mounted from a home that was not made.
func missingRoot(root string) string {
	for dir := filepath.Dir(root); ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		switch {
		case err != nil && dir != "/":
			continue
		case len(entries) == 0:
			return dir + " is empty: is a file system not mounted there, or hidden (ProtectHome=, TemporaryFileSystem=)?"
		}
		return root + " must be there before mail comes: lmtpd makes only what lies below it, since it may be a file system that is not mounted"
	}
}

// lookupHints explains an address that no database answers for.
func (e *explainer) lookupHints(x *delivery.Explanation) (list []string) {
	if !errors.Is(x.Err, userdb.ErrNoSuchDomain) {
		return nil
	}
	var all []string
	for _, u := range e.config.Userdb {
		for _, d := range u.Domains {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	if len(all) > 0 && !slices.Contains(all, x.Address.Domain) {
		list = append(list, fmt.Sprintf("domains of the user databases: %s; add %q to one of them if it belongs here", strings.Join(quotedAll(all), ", "), x.Address.Domain))
	}
	return list
}
