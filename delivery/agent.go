package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// Agent delivers messages to the mailboxes of their recipients. Set its fields
// before the first use and leave them alone afterwards; its methods are safe for
// concurrent use.
type Agent struct {
	Users   userdb.Database
	Rules   userdb.Rules
	Mailbox Location     // where mail goes that the user record does not place itself
	Writer  CopyWriter   // writes the copies, here or in another process
	Spool   Spool        // where bodies wait while they are written
	Trace   TraceOptions // what the header of a copy says about us

	// Transports take the mail that does not go into a Maildir.
	Transports Transports
	// Folders file a message within its mailbox.
	Folders Folders
	// Quota limits what a mailbox may hold; nil: nothing does, and no accounts are kept.
	Quota *QuotaPolicy
	// SingleInstance makes the copies for recipients with one owner one file with
	// several names (maildir.Target.Share), whose header names no recipient.
	SingleInstance bool
	// LoopCheck refuses a message that was delivered to the same address before.
	LoopCheck bool
	// MaxReceived is how many Received fields a message may have; 0: any number.
	MaxReceived int
	// Redelivery, if set, keeps messages that come again because a reply was lost
	// from being delivered twice. It needs Agent.Replied as a hook.
	Redelivery *Redelivery

	// Log gets one line per recipient and outcome; nil: slog.Default.
	Log *slog.Logger
	// Report, if set, is told of each outcome too. It may be called from several
	// goroutines at once.
	Report func(Outcome)
	// Noticed, if set, is told of each QuotaNotice: whether it went by "mail" or by
	// "command", and why it did not.
	Noticed func(by string, err error)
	// Beside, if set, counts what goes on beside deliveries, which Wait waits for.
	// Several agents may share it.
	Beside *sync.WaitGroup

	once   sync.Once
	prefix string
	fields []string // that Folders.Rules look at
	checks gate     // of quota at RCPT
	serial atomic.Uint64

	notices notices // on their way
}

// CopyWriter is what the Agent needs of maildir.Writer: it writes the body to each
// target and calls done once for each, in any order and from any goroutine.
type CopyWriter interface {
	Deliver(ctx context.Context, b maildir.Body, targets []maildir.Target, done func(i int, r maildir.Result))
}

// Envelope is a message that does not come from the protocol, as `lmtpd deliver` has it.
type Envelope struct {
	From  string   // reverse-path without angle brackets; "" is the null one
	Rcpts []string // recipients, as on a command line
	By    string   // who hands it in, for the Received field: "userid 1000"
}

// Rcpt is the hook for protocol.Policy: it finds the recipient's mailbox, or
// refuses it.
func (a *Agent) Rcpt(ctx context.Context, tx *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
	addr, err := a.Rules.Parse(rcpt.Path.Local, rcpt.Path.Domain)
	var r *recipient
	if err == nil {
		r, err = a.lookup(ctx, addr)
	}
	if err == nil && r.via == nil {
		err = a.hasRoom(ctx, r, tx.Mail.Size)
	}
	if err != nil {
		reply := replyFor(err)
		a.report(Outcome{
			Session: tx.Session.ID, From: tx.From.Raw, To: rcpt.Path.Raw, OrigTo: rcpt.ORcpt, QueueID: tx.Forward.Ident,
			Reply: reply, Err: err,
		})
		return reply
	}
	r.orig, r.queue, r.notify = rcpt.ORcpt, tx.Forward.Ident, rcpt.Notify
	rcpt.Value = r
	return protocol.Reply{}
}

// Replied is the hook for protocol.Policy that Redelivery needs: it tells whether
// the client has seen the replies of a transaction.
func (a *Agent) Replied(_ context.Context, tx *protocol.Transaction, seen bool) {
	if c, ok := tx.Value.(*claim); ok {
		c.end(seen)
	}
}

// Deliver implements protocol.Handler. With Redelivery it uses tx.Value.
func (a *Agent) Deliver(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
	m := &message{
		id: a.newID(), session: tx.Session.ID, from: tx.From.Raw,
		received: receivedFrom(tx), with: tx.With(),
		// RFC 3030 section 3: there are no line ends in it to convert.
		binary: tx.Mail.Body == protocol.BodyBinaryMIME,
		params: tx.Mail,
		rcpts:  make([]*recipient, len(tx.Rcpts)),
	}
	tx.ID = m.id
	for i := range tx.Rcpts {
		r, ok := tx.Rcpts[i].Value.(*recipient)
		if !ok {
			return fmt.Errorf("recipient %q was accepted without a lookup", tx.Rcpts[i].Path.Raw)
		}
		m.rcpts[i] = r
	}
	if err := a.spool(m, tx.Mail.Size, body); err != nil {
		return a.spoolFailed(m, err)
	}
	defer m.spooled.Close()
	if a.Redelivery != nil {
		m.claim = a.Redelivery.claim(tx.Session)
		tx.Value = m.claim
	}
	var worst worstReply
	a.deliver(ctx, m, func(i int, o Outcome) {
		worst.add(o.Reply)
		tx.Settle(i, o.Reply) // its errors are for handlers that settle twice
	})
	reply := worst.reply()
	if m.claim != nil && tx.Session.Mode == protocol.SMTP && !reply.OK() {
		m.claim.keep()
	}
	return reply
}

// spoolFailed reports a body that was not taken to every recipient. It may be the
// spool that failed; or the server has refused the body, or lost its client, and
// answers that itself, whatever is returned here.
func (a *Agent) spoolFailed(m *message, err error) error {
	var failed *spoolError
	var refused protocol.Reply
	var reply protocol.Reply
	switch {
	case errors.As(err, &failed):
		reply = replyFor(err)
	case errors.As(err, &refused):
		reply = refused
	default:
		err = fmt.Errorf("%w: %w", errCutOff, err)
		reply = replyFor(err)
	}
	for i := range m.rcpts {
		o := m.outcome(i)
		o.Reply, o.Err = reply, err
		a.report(o)
	}
	return reply
}

// Submit delivers a message that does not come from the protocol, and gives the
// outcome of each recipient by its index. The error is that of reading the body;
// nothing has been delivered then.
func (a *Agent) Submit(ctx context.Context, env Envelope, body io.Reader) ([]Outcome, error) {
	m := &message{id: a.newID(), from: env.From, received: "(from " + printable(env.By) + ")"}
	m.params.Body = protocol.Body8BitMIME // it may be anything
	outcomes := make([]Outcome, len(env.Rcpts))
	var known []int // indexes into env.Rcpts
	for i, to := range env.Rcpts {
		addr, err := a.Rules.ParseString(to)
		var r *recipient
		if err == nil {
			r, err = a.lookup(ctx, addr)
		}
		if err != nil {
			outcomes[i] = Outcome{ID: m.id, From: env.From, To: to, Reply: replyFor(err), Err: err}
			a.report(outcomes[i])
			continue
		}
		m.rcpts = append(m.rcpts, r)
		known = append(known, i)
	}
	if err := a.spool(m, 0, body); err != nil {
		a.spoolFailed(m, err)
		return nil, err
	}
	defer m.spooled.Close()
	a.deliver(ctx, m, func(i int, o Outcome) { outcomes[known[i]] = o })
	return outcomes, nil
}

// newID names a message in replies, Received fields and logs; unique across restarts.
func (a *Agent) newID() string {
	a.once.Do(func() {
		a.prefix = strconv.FormatInt(time.Now().UnixMicro(), 36)
		for _, r := range a.Folders.Rules {
			a.fields = append(a.fields, strings.ToLower(r.Field))
		}
	})
	return a.prefix + "-" + strconv.FormatUint(a.serial.Add(1), 36)
}
