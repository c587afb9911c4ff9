package delivery

import (
	"context"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// Explanation is what would become of a message to one address, found by the same
// steps as a delivery but for those that write.
type Explanation struct {
	Address userdb.Address
	User    *userdb.User // nil: none was found
	// Transport is the one that would get it, if it is not for a mailbox, with the host
	// and the address there.
	Transport, Host, Rcpt string
	Target                *maildir.Target  // nil: there is no mailbox to write to
	Probe                 maildir.Probe    // of Target
	Account               *maildir.Account // what it holds; nil: that was not found out
	Reply                 protocol.Reply   // of the delivery, or of RCPT where that refuses
	Err                   error            // the cause of a refusal
}

// Looker looks at a mailbox without writing to it. A maildir.Writer is one.
type Looker interface {
	Probe(context.Context, maildir.Target) maildir.Probe
	Account(context.Context, maildir.Target) (maildir.Account, error)
}

// Explain says what would become of a message of size octets (0: of any) to an address
// as a command line has it.
func (a *Agent) Explain(ctx context.Context, address string, size int64, look Looker) Explanation {
	var x Explanation
	var r *recipient
	if x.Address, x.Err = a.Rules.ParseString(address); x.Err == nil {
		x.User, x.Err = a.Users.Lookup(ctx, x.Address)
	}
	if x.Err == nil {
		r, x.Err = a.recipientOf(x.User, x.Address)
	}
	switch {
	case x.Err != nil:
	case r.via != nil:
		x.Transport, x.Host, x.Rcpt = r.via.name, r.via.host, r.via.address
		x.Reply = handedOn("ID", "")
		return x
	default:
		x.Err = a.explainMailbox(ctx, &x, r, size, look)
	}
	if x.Err != nil {
		x.Reply = replyFor(x.Err)
		return x
	}
	x.Reply = delivered("ID")
	return x
}

func (a *Agent) explainMailbox(ctx context.Context, x *Explanation, r *recipient, size int64, look Looker) error {
	x.Target = &maildir.Target{Owner: r.owner(), Root: r.root, Path: r.path, Folder: r.folder}
	if x.Probe = look.Probe(ctx, *x.Target); x.Probe.Err != nil {
		return x.Probe.Err
	}
	account, err := a.askAccount(ctx, r, look.Account)
	if err != nil {
		return err
	}
	x.Account = &account
	return a.judge(account.Fits(max(size, 1))) // a message has an octet at least
}
