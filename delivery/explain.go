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
	Target                *maildir.Target // nil: there is no mailbox to write to
	Probe                 maildir.Probe   // of Target
	Reply                 protocol.Reply  // of the delivery, or of RCPT where that refuses
	Err                   error           // the cause of a refusal
}

// Explain says what would become of a message to an address as a command line has
// it. probe looks at the mailbox: the Probe of a maildir.Writer, or a function
// that asks one.
func (a *Agent) Explain(ctx context.Context, address string, probe func(context.Context, maildir.Target) maildir.Probe) Explanation {
	var x Explanation
	if x.Address, x.Err = a.Rules.ParseString(address); x.Err == nil {
		x.User, x.Err = a.Users.Lookup(ctx, x.Address)
	}
	if x.Err == nil {
		var r *recipient
		if r, x.Err = a.recipientOf(x.User, x.Address); x.Err == nil && r.via != nil {
			x.Transport, x.Host, x.Rcpt = r.via.name, r.via.host, r.via.address
			x.Reply = handedOn("ID", "")
			return x
		} else if x.Err == nil {
			x.Target = &maildir.Target{Owner: r.owner(), Root: r.root, Path: r.path, Folder: r.folder}
			x.Probe = probe(ctx, *x.Target)
			x.Err = x.Probe.Err
		}
	}
	if x.Err != nil {
		x.Reply = replyFor(x.Err)
		return x
	}
	x.Reply = delivered("ID")
	return x
}
