package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
)

// Outcome is what became of one recipient of one message.
type Outcome struct {
	Session   uint64 // 0: not from the protocol
	ID        string // of the message; "" for a recipient refused before DATA
	QueueID   string // the client's name for the message: by XFORWARD, else receivedID; "" if not known
	MessageID string // the Message-ID field, without its brackets
	From, To  string // reverse-path and recipient as they came
	OrigTo    string // the address that the sender wrote, if known
	Mailbox   string // the user that the database found
	Transport string // "maildir", or the name of another; "" if it came to none
	Target    string // of another transport: the server or the program
	File      string // path of the new file
	Folder    string // "" is INBOX
	Size      int64  // octets of the new file
	Reply     protocol.Reply
	Err       error // the cause of a refusal; for the log, never for a client
	Duplicate bool  // the recipient was named twice; this is not the first
	Warning   error // what went wrong besides; for the log
	Again     bool  // the message came again: its copy was delivered before
	Stale     int64 // files that were removed from tmp/ of some mailboxes lately, see maildir.Result

	// Where the time went. Write includes finding or making the mailbox, Sync
	// the naming.
	Lookup, Spool, Write, Sync time.Duration
}

// Status is "delivered", "deferred" or "refused".
func (o *Outcome) Status() string {
	switch {
	case o.Reply.OK():
		return "delivered"
	case o.Reply.Temporary():
		return "deferred"
	}
	return "refused"
}

func (m *message) outcome(i int) Outcome {
	r := m.rcpts[i]
	o := Outcome{
		Session: m.session, ID: m.id, From: m.from, To: r.addr.String(), OrigTo: r.orig,
		Mailbox: r.user.Name, Lookup: r.took, Spool: m.took, QueueID: r.queue,
	}
	if m.spooled != nil {
		o.MessageID = m.spooled.header.messageID
		if o.QueueID == "" {
			o.QueueID = m.spooled.header.queueID
		}
	}
	return o
}

func (o *Outcome) fill(res maildir.Result) {
	o.Transport, o.Warning = "maildir", res.Warning
	o.File, o.Folder, o.Size, o.Err = res.File, res.Folder, res.Size, res.Err
	o.Write, o.Sync = res.Open+res.Write, res.Sync+res.Name
	if !o.Duplicate {
		o.Stale = res.Stale
	}
	if res.Err != nil {
		o.Reply = replyFor(res.Err)
		return
	}
	o.Reply = delivered(o.ID)
	if res.Found {
		o.again()
	}
}

// again is the outcome of a copy that was delivered before.
func (o *Outcome) again() { o.Reply, o.Again = deliveredBefore(o.ID), true }

// report writes the log line of an outcome and tells Report. A refusal that is
// nobody's mistake here is information; what an operator may have to repair is a
// warning.
//
// The keys are an interface: each line has all of them in this order, "" where
// there is nothing to say, so that a line can be taken apart by machine. Only the
// last one differs: file of a copy that was written, error of one that was not.
// lmtpd(8) describes them. Delays are in milliseconds.
func (a *Agent) report(o Outcome) {
	if a.Report != nil {
		a.Report(o)
	}
	log := a.Log
	if log == nil {
		log = slog.Default()
	}
	if o.Warning != nil {
		log.Warn("delivered, but", "id", o.ID, "to", o.To, "error", o.Warning.Error())
	}
	level := slog.LevelInfo
	if o.Reply.Temporary() {
		level = slog.LevelWarn
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	last := slog.String("file", o.File)
	if !o.Reply.OK() {
		cause := o.Reply.Error()
		if o.Err != nil {
			cause = o.Err.Error()
		}
		last = slog.String("error", cause)
	}
	log.LogAttrs(context.Background(), level, "recipient",
		slog.Uint64("session", o.Session), slog.String("id", o.ID),
		slog.String("queue_id", o.QueueID), slog.String("message_id", o.MessageID),
		slog.String("from", o.From), slog.String("to", o.To), slog.String("orig_to", o.OrigTo),
		slog.String("mailbox", o.Mailbox), slog.String("folder", o.Folder),
		slog.String("transport", o.Transport), slog.String("target", o.Target), slog.Int64("size", o.Size),
		slog.String("status", o.Status()), slog.Int("code", o.Reply.Code),
		slog.String("enhanced", o.Reply.Enhanced.String()), slog.Bool("duplicate", o.Duplicate),
		slog.Bool("again", o.Again),
		delay("delay_lookup", o.Lookup), delay("delay_spool", o.Spool),
		delay("delay_write", o.Write), delay("delay_sync", o.Sync), last)
}

func delay(key string, d time.Duration) slog.Attr {
	return slog.Float64(key, float64(d.Microseconds())/1000)
}
