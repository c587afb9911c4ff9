package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/lmtpd/lmtpd/protocol"
)

// link is a connection to the next server, with at most one transaction.
type link struct {
	c       *smtp.Client
	conn    net.Conn
	stop    func() bool // the end of the context that it was made with matters no more
	lmtp    bool
	secured bool // by TLS
	held    bool // it belongs to a session, not to one message
	dead    bool // of no use any more
	open    bool // MAIL has been accepted

	replies  map[string]protocol.Reply // by recipient: to RCPT, and at last to the data
	accepted []string                  // those with a 2yz to RCPT, in order
}

var (
	unreachable = protocol.Reply{Code: 451, Enhanced: protocol.Enhanced{4, 4, 1}, Text: "Error: next server is not available"}
	noEightBit  = protocol.Reply{Code: 554, Enhanced: protocol.Enhanced{5, 6, 3}, Text: "Error: next server takes no 8-bit message"}
	noBinary    = protocol.Reply{Code: 554, Enhanced: protocol.Enhanced{5, 6, 3}, Text: "Error: no binary message can be passed on"}
	noTLS       = protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 7, 30}, Text: "Error: next server has no REQUIRETLS"}
	noRRVS      = protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 7, 19}, Text: "Error: next server has no RRVS"}
	noUTF8      = protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 6, 7}, Text: "Error: next server has no SMTPUTF8"}
)

// connect makes a connection and greets.
func (r *Relay) connect(outer context.Context) (*link, protocol.Reply) {
	ctx, cancel := context.WithTimeout(outer, r.timeout())
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, r.Network, r.Addr)
	if err != nil {
		return nil, unreachable
	}
	conn = &patientConn{conn, r.timeout()}
	if r.TLS != nil {
		secured := tls.Client(conn, r.TLS)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, unreachable
		}
		conn = secured
	}
	l := &link{c: smtp.NewClient(conn), conn: conn, secured: r.TLS != nil}
	// The client knows no contexts: a connection that is cut off ends all waiting.
	l.stop = context.AfterFunc(outer, func() { conn.Close() })
	if r.Mode == protocol.LMTP {
		l.c, l.lmtp = smtp.NewClientLMTP(conn), true
	}
	l.c.CommandTimeout = r.timeout()
	l.c.SubmissionTimeout = 10 * time.Minute // RFC 5321 section 4.5.3.2.6
	if err := l.c.Hello(r.hello()); err != nil {
		l.dead = true
		l.quit()
		return nil, l.reply(err)
	}
	return l, protocol.Reply{}
}

// patientConn bounds the time that each piece of data takes to be taken.
type patientConn struct {
	net.Conn
	timeout time.Duration
}

func (c *patientConn) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(c.timeout))
	return c.Conn.Write(p)
}

// key is what makes two recipients the same one.
func key(p protocol.Path) string { return p.String() }

// mail opens a transaction; field will be added to the message.
func (l *link) mail(tx *protocol.Transaction, field string) protocol.Reply {
	if l.open { // one that the client has given up
		l.open = false
		if err := l.c.Reset(); err != nil {
			return l.reply(err)
		}
	}
	l.replies, l.accepted = make(map[string]protocol.Reply), nil
	if r := l.suits(tx); !r.OK() {
		return r
	}
	opts := smtp.MailOptions{Size: tx.Mail.Size, UTF8: tx.Mail.UTF8, RequireTLS: tx.Mail.RequireTLS, Return: smtp.DSNReturn(tx.Mail.Ret)}
	if opts.Size > 0 && opts.Size < math.MaxInt64-int64(len(field)) {
		opts.Size += int64(len(field))
	}
	if isASCII(tx.Mail.EnvID) {
		opts.EnvelopeID = tx.Mail.EnvID
	}
	if err := l.c.Mail(tx.From.String(), &opts); err != nil {
		return l.reply(err)
	}
	l.open = true
	return protocol.Reply{}
}

// suits reports whether the next server can take the message without a conversion
// (RFC 6152 section 3, RFC 3030 section 3, RFC 6531 section 3.2, RFC 8689 section 4.2.1).
func (l *link) suits(tx *protocol.Transaction) protocol.Reply {
	offers := func(ext string) bool { ok, _ := l.c.Extension(ext); return ok }
	switch {
	case tx.Mail.Body == protocol.BodyBinaryMIME:
		return noBinary
	case tx.Mail.UTF8 && !offers("SMTPUTF8"):
		return noUTF8
	case tx.Mail.RequireTLS && !(l.secured && offers("REQUIRETLS")):
		return noTLS
	case tx.Mail.Body == protocol.Body8BitMIME && !offers("8BITMIME"):
		return noEightBit
	}
	return protocol.Reply{}
}

// rcpt passes a recipient on, unless it has been passed on already.
func (l *link) rcpt(tx *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
	k := key(rcpt.Path)
	if r, ok := l.replies[k]; ok {
		return r
	}
	if l.dead {
		l.replies[k] = unreachable
		return unreachable
	}
	opts := smtp.RcptOptions{RequireRecipientValidSince: rcpt.RRVS.Time}
	if ok, _ := l.c.Extension("RRVS"); !ok && !rcpt.RRVS.Time.IsZero() && rcpt.RRVS.Action != 'C' {
		l.replies[k] = noRRVS
		return noRRVS
	}
	for _, n := range []struct {
		bit  protocol.Notify
		name smtp.DSNNotify
	}{
		{protocol.NotifyNever, smtp.DSNNotifyNever}, {protocol.NotifySuccess, smtp.DSNNotifySuccess},
		{protocol.NotifyFailure, smtp.DSNNotifyFailure}, {protocol.NotifyDelay, smtp.DSNNotifyDelayed},
	} {
		if rcpt.Notify&n.bit != 0 {
			opts.Notify = append(opts.Notify, n.name)
		}
	}
	if o := rcpt.ORcpt; o != "" && !strings.Contains(o, ";") {
		opts.OriginalRecipient, opts.OriginalRecipientType = o, smtp.DSNAddressTypeRFC822
		if !isASCII(o) {
			opts.OriginalRecipientType = smtp.DSNAddressTypeUTF8
		}
	}
	if err := l.c.Rcpt(k, &opts); err != nil {
		l.replies[k] = l.reply(err)
		return l.replies[k]
	}
	l.replies[k] = protocol.Reply{Code: 250}
	l.accepted = append(l.accepted, k)
	return protocol.Reply{}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c > 0x7e })
}

// prepared reports whether the open transaction is tx, with exactly its recipients.
func (l *link) prepared(tx *protocol.Transaction) bool {
	if !l.open || l.dead {
		return false
	}
	wanted := make(map[string]bool)
	for i := range tx.Rcpts {
		k := key(tx.Rcpts[i].Path)
		if r, ok := l.replies[k]; !ok || !r.OK() {
			return false
		}
		wanted[k] = true
	}
	return len(wanted) == len(l.accepted)
}

// send passes the message on to those recipients that were accepted, and notes their
// replies.
func (l *link) send(body *protocol.Body, field string) {
	if len(l.accepted) == 0 {
		return
	}
	data, err := l.c.Data()
	if err != nil {
		l.each(l.reply(err))
		return
	}
	content := &content{dst: data, field: field}
	if _, err := body.WriteTo(content); err != nil || content.end() != nil {
		// Without the final dot the next server forgets the message.
		l.dead = true
		l.conn.Close()
		l.each(unreachable)
		return
	}
	if !l.lmtp {
		resp, err := data.CloseWithResponse()
		if err != nil {
			l.each(l.reply(err))
			return
		}
		l.each(taken(resp))
		return
	}
	// Each recipient is there once, so that the addresses are keys.
	resps, err := data.CloseWithLMTPResponse()
	var refused smtp.LMTPDataError
	errors.As(err, &refused)
	for _, k := range l.accepted {
		switch {
		case resps[k] != nil:
			l.replies[k] = taken(resps[k])
		case refused[k] != nil:
			l.replies[k] = l.reply(refused[k])
		default: // the connection broke before this reply
			l.dead = true
			l.replies[k] = unreachable
		}
	}
}

// each gives r to all recipients that had been accepted.
func (l *link) each(r protocol.Reply) {
	for _, k := range l.accepted {
		l.replies[k] = r
	}
}

// taken is the reply to a recipient whose message was taken; the text may have the
// other server's queue id in it.
func taken(resp *smtp.DataResponse) protocol.Reply {
	text := resp.StatusText
	if code, rest, ok := strings.Cut(text, " "); ok && strings.HasPrefix(code, "2.") {
		text = strings.ReplaceAll(rest, "\n"+code+" ", "\n")
	}
	return protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 0, 0}, Text: text}
}

// reply makes a Reply of what the client met: the server's own, or unreachable.
func (l *link) reply(err error) protocol.Reply {
	var e *smtp.SMTPError
	if !errors.As(err, &e) {
		l.dead = true
		return unreachable
	}
	r := protocol.Reply{Code: e.Code, Text: e.Message}
	if c := e.EnhancedCode; c[0] > 0 {
		r.Enhanced = protocol.Enhanced{uint16(c[0]), uint16(c[1]), uint16(c[2])}
	} else {
		r.Enhanced[0] = uint16(e.Code / 100) // not ours to guess why
	}
	switch {
	case e.Code == 421: // it closes its channel; ours stays open
		l.dead = true
		r.Code = 451
	case e.Code < 400 || e.Code > 599:
		l.dead = true
		return protocol.Reply{Code: 451, Enhanced: protocol.Enhanced{4, 5, 0}, Text: "Error: next server is out of step"}
	}
	return r
}

// quit ends the connection; a server that does not answer is not waited for long.
func (l *link) quit() {
	if !l.dead {
		l.c.CommandTimeout = 5 * time.Second
		l.c.Quit()
	}
	l.dead = true
	l.stop()
	l.conn.Close()
}
