package delivery

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// failures is the table of replies: the first row whose cause is found in an
// error decides. An error that is not here may be one that an operator can
// repair, so it is 451 4.3.0. Texts say nothing about this machine.
var failures = []struct {
	cause error
	reply protocol.Reply
}{
	// What is known to be permanent.
	{userdb.ErrBadAddress, perm(501, 1, 3, "Bad recipient address")},
	{userdb.ErrNoSuchDomain, perm(550, 1, 2, "No mail for this domain here")},
	{userdb.ErrNoSuchUser, perm(550, 1, 1, "User unknown")},
	{userdb.ErrDisabled, perm(550, 2, 1, "Mailbox disabled")},
	{errFull, perm(552, 2, 2, "Mailbox is full")},
	{maildir.ErrQuotaSize, perm(552, 2, 3, "Message is larger than this mailbox may hold")},
	{errLoop, perm(554, 4, 6, "Message was delivered to this address before: mail loop")},
	{errHops, perm(554, 4, 6, "Too many Received fields: mail loop")},
	{errRelayLoop, perm(554, 4, 6, "Message has been relayed by this host too often: mail loop")},
	{ErrNoUTF8, perm(550, 6, 7, "Next server takes no UTF-8 addresses and headers")},
	{ErrNoRequireTLS, perm(550, 7, 30, "Next server does not promise REQUIRETLS")},
	{ErrNotAsIs, perm(554, 6, 3, "Next server cannot take this message as it is")},

	// The administrator's mistakes.
	{userdb.ErrBadRecord, temp(451, 3, 5, "Recipient is misconfigured")},
	{maildir.ErrOwner, temp(451, 3, 5, "Recipient is misconfigured")},
	{maildir.ErrPath, temp(451, 3, 5, "Recipient is misconfigured")},

	// What befell another server, or a program. Before errnos: they are not about a mailbox.
	{ErrMisconfigured, temp(451, 3, 5, "Delivery is misconfigured")},
	{ErrUnsafe, temp(451, 7, 5, "Connection to the next server is not safe")},
	{ErrBusy, temp(451, 3, 2, "Too many deliveries at once")},
	{ErrUnreachable, temp(451, 4, 1, "Next server cannot be reached")},
	{ErrBroken, temp(451, 4, 2, "Next server did not answer")},
	{ErrSlow, temp(451, 3, 0, "Delivery took too long")},
	{errUnderWay, temp(451, 3, 2, "Message is still being delivered since it came before")},

	// What a machine runs out of, or what is broken. What befell the spool comes
	// first, since its errnos are not those of a mailbox.
	{errSpoolFull, temp(452, 3, 1, "Insufficient system storage")},
	{errSpool, temp(451, 3, 0, "Temporary internal failure")},
	{maildir.ErrRoot, temp(451, 2, 0, "Mailbox is not available")},
	{maildir.ErrBusy, temp(451, 3, 2, "Too many deliveries to this mailbox at once")},
	{maildir.ErrQuota, temp(452, 2, 2, "Mailbox is full")},
	{syscall.EDQUOT, temp(452, 2, 2, "Mailbox is full")},
	{syscall.ENOSPC, temp(452, 3, 1, "Insufficient system storage")},
	{syscall.EFBIG, temp(452, 3, 1, "Insufficient system storage")},
	{syscall.ELOOP, temp(451, 2, 0, "Mailbox is damaged")},
	{syscall.ENOTDIR, temp(451, 2, 0, "Mailbox is damaged")},
	{syscall.EXDEV, temp(451, 2, 0, "Mailbox is damaged")},
	{context.DeadlineExceeded, temp(451, 2, 0, "Mailbox did not answer in time")},
	{context.Canceled, temp(451, 3, 2, "Delivery was interrupted")},
	{fs.ErrPermission, temp(451, 3, 0, "Mailbox cannot be written")},

	// What nobody reads any more, but the log says.
	{errCutOff, temp(451, 4, 2, "Message did not arrive whole")},
}

func perm(code int, subject, detail uint16, text string) protocol.Reply {
	return protocol.Reply{Code: code, Enhanced: protocol.Enhanced{5, subject, detail}, Text: text}
}

func temp(code int, subject, detail uint16, text string) protocol.Reply {
	return protocol.Reply{Code: code, Enhanced: protocol.Enhanced{4, subject, detail}, Text: text}
}

// errCutOff: the client went away, or was too slow, before the end of the data.
var errCutOff = errors.New("message did not arrive whole")

// replyFor is the reply for a failure, nil excepted.
func replyFor(err error) protocol.Reply {
	for _, f := range failures {
		if errors.Is(err, f.cause) {
			return f.reply
		}
	}
	return temp(451, 3, 0, "Temporary internal failure")
}

// delivered is the reply for a copy that is on disk.
func delivered(id string) protocol.Reply {
	return protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 0, 0}, Text: "OK " + id + " delivered"}
}

// handedOn is the reply for a message that is somebody else's now, with what that said.
func handedOn(id, said string) protocol.Reply {
	text := "OK " + id + " handed on"
	if said != "" {
		text += " (" + said + ")"
	}
	return protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 0, 0}, Text: text}
}

// deliveredBefore is the reply for a message that came again.
func deliveredBefore(id string) protocol.Reply {
	return protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 0, 0}, Text: "OK " + id + " was delivered before"}
}

// worstReply makes one reply of those of all recipients, for SMTP mode: success
// or a permanent failure only where they agree, else a temporary failure, so that
// no recipient is lost.
type worstReply struct {
	first protocol.Reply
	mixed bool
	temp  protocol.Reply
}

func (w *worstReply) add(r protocol.Reply) {
	switch {
	case r.Temporary():
		w.temp = r
	case w.first.Code == 0:
		w.first = r
	case w.first.OK() != r.OK():
		w.mixed = true
	}
}

func (w *worstReply) reply() protocol.Reply {
	switch {
	case w.temp.Code != 0:
		return w.temp
	case w.mixed:
		return temp(451, 3, 0, "Not every recipient could be served")
	}
	return w.first
}
