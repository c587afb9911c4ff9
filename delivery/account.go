package delivery

import (
	"context"
	"path"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// MailboxAccount is what a user's mailbox holds and may hold.
type MailboxAccount struct {
	Address userdb.Address
	User    *userdb.User // nil: none was found
	Mailbox string       // absolute path of the Maildir; "": there is none
	// Transport is the one that gets the mail, if it is not for a mailbox.
	Transport string
	maildir.Account
	Reply protocol.Reply // of a failure, as a delivery would give it
	Err   error          // nil: Account is known
}

// AskAccount is Account or Recount of a maildir.Writer, or a function that chooses one.
type AskAccount func(context.Context, maildir.Target) (maildir.Account, error)

// Account finds the mailbox of an address and asks about it, with the limits that hold
// for a delivery to it. Where a file system hangs, it returns at the end of ctx.
func (a *Agent) Account(ctx context.Context, addr userdb.Address, ask AskAccount) MailboxAccount {
	m := MailboxAccount{Address: addr}
	m.Err = a.account(ctx, &m, ask)
	if m.Err != nil {
		m.Reply = replyFor(m.Err)
	}
	return m
}

func (a *Agent) account(ctx context.Context, m *MailboxAccount, ask AskAccount) (err error) {
	if m.User, err = a.Users.Lookup(ctx, m.Address); err != nil {
		return err
	}
	r, err := a.recipientOf(m.User, m.Address)
	if err != nil {
		return err
	}
	if r.via != nil {
		m.Transport = r.via.name
		return nil
	}
	m.Mailbox = path.Join(r.root, r.path)
	m.Account, err = a.askAccount(ctx, r, ask)
	return err
}

func (a *Agent) askAccount(ctx context.Context, r *recipient, ask AskAccount) (maildir.Account, error) {
	limits, err := a.limits(r)
	if err != nil {
		return maildir.Account{}, err
	}
	t := maildir.Target{Owner: r.owner(), Root: r.root, Path: r.path, Quota: limits, Account: r.addr.String()}
	type answer struct {
		maildir.Account
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		account, err := ask(ctx, t)
		answers <- answer{account, err}
	}()
	select {
	case got := <-answers:
		return got.Account, got.err
	case <-ctx.Done():
		return maildir.Account{}, context.Cause(ctx)
	}
}
