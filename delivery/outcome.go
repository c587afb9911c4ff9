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
	MessageID string // the Message-ID field, without its brackets
	From, To  string // reverse-path and recipient as they came
	OrigTo    string // the address that the sender wrote, if known
	Mailbox   string // the user that the database found
	File      string // path of the new file
	Folder    string // "" is INBOX
	Size      int64  // octets of the new file
	Reply     protocol.Reply
	Err       error // the cause of a refusal; for the log, never for a client
	Duplicate bool  // the recipient was named twice; this is not the first

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
		Mailbox: r.user.Name, Lookup: r.took, Spool: m.took,
	}
	if m.spooled != nil {
		o.MessageID = m.spooled.header.messageID
	}
	return o
}

func (o *Outcome) fill(res maildir.Result) {
	o.File, o.Folder, o.Size, o.Err = res.File, res.Folder, res.Size, res.Err
	o.Write, o.Sync = res.Open+res.Write, res.Sync+res.Name
	if res.Err != nil {
		o.Reply = replyFor(res.Err)
		return
	}
	o.Reply = delivered(o.ID)
}

// report writes the log line of an outcome. A refusal that is nobody's mistake
// here is information; what an operator may have to repair is a warning.
func (a *Agent) report(o Outcome) {
	if a.Report != nil {
		a.Report(o)
	}
	log := a.Log
	if log == nil {
		log = slog.Default()
	}
	level := slog.LevelInfo
	if o.Reply.Temporary() {
		level = slog.LevelWarn
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 18)
	str := func(key, v string) {
		if v != "" {
			attrs = append(attrs, slog.String(key, v))
		}
	}
	if o.Session != 0 {
		attrs = append(attrs, slog.Uint64("session", o.Session))
	}
	str("id", o.ID)
	str("message_id", o.MessageID)
	attrs = append(attrs, slog.String("from", o.From), slog.String("to", o.To))
	str("orig_to", o.OrigTo)
	str("mailbox", o.Mailbox)
	str("folder", o.Folder)
	str("file", o.File)
	if o.Reply.OK() {
		attrs = append(attrs, slog.Int64("size", o.Size))
	}
	attrs = append(attrs, slog.String("status", o.Status()), slog.Int("code", o.Reply.Code),
		slog.String("enhanced", o.Reply.Enhanced.String()))
	if o.Duplicate {
		attrs = append(attrs, slog.Bool("duplicate", true))
	}
	if o.Err != nil {
		attrs = append(attrs, slog.String("error", o.Err.Error()))
	}
	if o.ID != "" {
		attrs = append(attrs, slog.Duration("delay_lookup", o.Lookup), slog.Duration("delay_spool", o.Spool),
			slog.Duration("delay_write", o.Write), slog.Duration("delay_sync", o.Sync))
	}
	log.LogAttrs(context.Background(), level, "recipient", attrs...)
}
