package delivery

import (
	"context"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// recipient is an address whose mailbox has been found.
type recipient struct {
	addr   userdb.Address
	user   *userdb.User
	root   string // must exist
	path   string // the Maildir below root
	folder string // as far as the header has no say in it; "" is INBOX
	orig   string // the address that the sender wrote, "" if not known
	queue  string // the client's name for the message, if it gave one (XFORWARD)
	notify protocol.Notify
	took   time.Duration
	via    *route // nil: root and path; else there are none
}

// recipientKey is equal for two RCPT commands that mean one copy: the same
// mailbox under the same address.
type recipientKey struct {
	local, detail, domain, root, path string
	route                             [3]string
}

func (r *recipient) key() recipientKey {
	return recipientKey{r.addr.Local, r.addr.Detail, r.addr.Domain, r.root, r.path, r.routeKey()}
}

func (r *recipient) owner() *maildir.Owner {
	if r.user.Owner == nil {
		return nil
	}
	o := maildir.Owner(*r.user.Owner)
	return &o
}

// lookup finds the mailbox of an address. Its errors go through replyFor.
func (a *Agent) lookup(ctx context.Context, addr userdb.Address) (*recipient, error) {
	start := time.Now()
	user, err := a.Users.Lookup(ctx, addr)
	if err != nil {
		return nil, err
	}
	r, err := a.recipientOf(user, addr)
	if err != nil {
		return nil, err
	}
	r.took = time.Since(start)
	return r, nil
}

// recipientOf says which way a user's mail for an address goes.
func (a *Agent) recipientOf(user *userdb.User, addr userdb.Address) (*recipient, error) {
	via, err := a.Transports.route(user, addr)
	if err != nil {
		return nil, err
	}
	if via != nil {
		return &recipient{addr: addr, user: user, via: via}, nil
	}
	return a.mailboxOf(user, addr)
}

// CheckRoute says why mail of a user cannot find its transport: nil, or what a delivery
// would meet.
func (a *Agent) CheckRoute(user *userdb.User, addr userdb.Address) error {
	_, err := a.Transports.route(user, addr)
	return err
}

// mailboxOf says where a user's mail for an address goes.
func (a *Agent) mailboxOf(user *userdb.User, addr userdb.Address) (_ *recipient, err error) {
	r := &recipient{addr: addr, user: user}
	if r.root, r.path, err = a.Mailbox.locate(user, addr, a.Trace.Hostname); err != nil {
		return nil, err
	}
	r.folder = a.Folders.file(r, &messageHeader{}).folder
	return r, nil
}
