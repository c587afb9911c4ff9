package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
)

// send hands a batch over and settles its recipients, each as soon as it has its reply.
// An error is one before the end of the data: those that are left may go elsewhere. It is
// errStale if that can be because the connection had been kept too long.
func (l *link) send(ctx context.Context, b *batch) error {
	deadline, _ := ctx.Deadline()
	l.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { l.conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			l.dead = true // its deadline is past, or will be at any time
		}
	}()
	stale := l.reused
	accepted, err := l.envelope(b, &stale)
	if err == nil && len(accepted) > 0 {
		err = l.data(b, accepted)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case stale:
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return err
}

// envelope sends MAIL and RCPT and gives the recipients that were accepted; those that
// were not are settled. stale is cleared with the first reply, unless that says that the
// connection has been idle too long.
func (l *link) envelope(b *batch, stale *bool) (accepted []int, err error) {
	if l.open { // one in which nobody was accepted
		reply, err := l.command("RSET")
		if err == nil && reply.Code != 250 {
			err = l.hangUp("RSET", reply)
		}
		if err != nil {
			return nil, err
		}
		*stale, l.open = false, false
	}
	if err := l.suits(b); err != nil {
		*stale = false
		return nil, err
	}
	mail := l.mail(b.p)
	pipelining := l.offers("PIPELINING") // RFC 2920
	l.put(mail)
	if pipelining {
		for _, i := range b.open {
			l.put(l.rcpt(b.p, &b.p.Rcpts[i]))
		}
	}
	if err := l.flush(); err != nil {
		return nil, err
	}
	reply, err := l.reply()
	if err != nil {
		return nil, err
	}
	*stale = *stale && reply.Code == 421
	if reply.Code != 250 {
		if reply.Code == 421 || reply.Code/100 < 4 {
			return nil, l.hangUp("MAIL", reply)
		}
		for range b.open {
			if !pipelining {
				break
			}
			if _, err := l.reply(); err != nil { // of RCPT, without a transaction
				break
			}
		}
		b.settle(l.outcome(reply))
		return nil, nil
	}
	l.open = true
	var open []int
	for n, i := range b.open {
		if !pipelining {
			l.put(l.rcpt(b.p, &b.p.Rcpts[i]))
			if err := l.flush(); err != nil {
				b.open = append(open, b.open[n:]...)
				return nil, err
			}
		}
		reply, err := l.reply()
		if err == nil && (reply.Code == 421 || reply.Code/100 == 3) {
			err = l.hangUp("RCPT", reply)
		}
		if err != nil {
			b.open = append(open, b.open[n:]...)
			return nil, err
		}
		if reply.Code/100 == 2 {
			open = append(open, i)
		} else {
			b.done(i, l.outcome(reply))
		}
	}
	b.open = open
	return open, nil
}

// data sends the message and settles the recipients. Once the end of the data is on its
// way there is no error any more: a recipient without a reply is in doubt.
func (l *link) data(b *batch, accepted []int) error {
	if b.p.Mail.Body == protocol.BodyBinaryMIME {
		if err := l.chunk(b.p); err != nil {
			return err
		}
	} else {
		reply, err := l.command("DATA")
		if err != nil {
			return err
		}
		if reply.Code != 354 {
			if reply.Code == 421 || reply.Code/100 < 4 {
				return l.hangUp("DATA", reply)
			}
			b.settle(l.outcome(reply)) // the transaction goes on, without its data: open
			return nil
		}
		if err := l.content(b.p); err != nil {
			l.close() // without its end the message is none
			return err
		}
		l.out.WriteString(".\r\n")
	}
	l.open = false
	err := l.flush()
	for n, i := range accepted {
		var reply protocol.Reply
		if err == nil && (n == 0 || l.lmtp) {
			reply, err = l.reply()
			if err == nil && reply.Code/100 == 3 {
				err = l.hangUp("the data", reply)
			}
			if !l.lmtp && err == nil {
				b.settle(l.outcome(reply)) // RFC 5321: one reply for all
				return nil
			}
		}
		if err != nil {
			l.broken = fmt.Errorf("no answer to the end of the data: %w", err)
			b.settle(delivery.Handover{Err: fmt.Errorf("%w: %s: %w", delivery.ErrBroken, l.host, err), Target: l.host.String()})
			return nil
		}
		b.done(i, l.outcome(reply))
		b.open = b.open[1:]
	}
	return nil
}

// content sends the lines of the message.
func (l *link) content(p *delivery.Parcel) error {
	c := &content{dst: l.out}
	if _, err := io.Copy(c, p.Open()); err != nil {
		return err
	}
	c.end()
	return l.flush()
}

// chunk sends a message of BODY=BINARYMIME, in which there are no lines (RFC 3030), up
// to its last octet, which is kept back: what is incomplete is no message.
func (l *link) chunk(p *delivery.Parcel) error {
	l.put("BDAT " + strconv.FormatInt(p.Size, 10) + " LAST")
	body := p.Open()
	if _, err := io.CopyN(l.out, body, p.Size-1); err != nil {
		l.close()
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	if _, err := io.CopyN(l.out, body, 1); err != nil {
		l.close()
		return err
	}
	return nil
}

// suits says why the server cannot take the message as it is (RFC 3030 section 3, RFC
// 6531 section 3.2, RFC 8689 section 4). A message of 8BITMIME goes to any server: those that do not offer
// it, and do not take it, are museum pieces.
func (l *link) suits(b *batch) error {
	utf8 := b.p.Mail.UTF8 || !isASCII(b.p.From)
	for _, i := range b.open {
		utf8 = utf8 || !isASCII(b.p.Rcpts[i].Address)
	}
	if utf8 && !l.offers("SMTPUTF8") {
		return delivery.ErrNoUTF8
	}
	if b.p.Mail.RequireTLS && !(l.safe && l.offers("REQUIRETLS")) {
		return delivery.ErrNoRequireTLS
	}
	if b.p.Mail.Body == protocol.BodyBinaryMIME && !(l.offers("BINARYMIME") && l.offers("CHUNKING")) {
		return fmt.Errorf("%w: it does not offer BINARYMIME", delivery.ErrNotAsIs)
	}
	return nil
}

// mail is the MAIL command, with the parameters that the server knows.
func (l *link) mail(p *delivery.Parcel) string {
	cmd := "MAIL FROM:<" + p.From + ">"
	if l.offers("SIZE") {
		cmd += " SIZE=" + strconv.FormatInt(p.WireSize, 10)
	}
	if body := p.Mail.Body; body == protocol.BodyBinaryMIME || body != "" && l.offers("8BITMIME") {
		cmd += " BODY=" + string(body)
	}
	if l.offers("SMTPUTF8") && (p.Mail.UTF8 || !isASCII(p.From) || anyUTF8(p.Rcpts)) {
		cmd += " SMTPUTF8"
	}
	if p.Mail.RequireTLS {
		cmd += " REQUIRETLS" // RFC 8689
	}
	if l.offers("DSN") {
		if p.Mail.Ret != "" {
			cmd += " RET=" + string(p.Mail.Ret)
		}
		if p.Mail.EnvID != "" {
			cmd += " ENVID=" + xtext(p.Mail.EnvID)
		}
	}
	return cmd
}

func (l *link) rcpt(p *delivery.Parcel, r *delivery.ParcelRcpt) string {
	cmd := "RCPT TO:<" + r.Address + ">"
	if !l.offers("DSN") {
		return cmd
	}
	if r.Notify != 0 {
		cmd += " NOTIFY=" + notify(r.Notify)
	}
	if r.ORcpt != "" && isASCII(r.ORcpt) {
		kind, orig, ok := strings.Cut(r.ORcpt, ";")
		if !ok {
			kind, orig = "rfc822", r.ORcpt
		}
		cmd += " ORCPT=" + kind + ";" + xtext(orig)
	}
	return cmd
}

func notify(n protocol.Notify) string {
	var list []string
	for _, e := range []struct {
		bit  protocol.Notify
		name string
	}{
		{protocol.NotifyNever, "NEVER"}, {protocol.NotifySuccess, "SUCCESS"}, {protocol.NotifyFailure, "FAILURE"}, {protocol.NotifyDelay, "DELAY"},
	} {
		if n&e.bit != 0 {
			list = append(list, e.name)
		}
	}
	return strings.Join(list, ",")
}

func anyUTF8(rcpts []delivery.ParcelRcpt) bool {
	for i := range rcpts {
		if !isASCII(rcpts[i].Address) {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c > 0x7e })
}

// xtext encodes a value as RFC 3461 section 4 has it.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// hangUp is the error for a reply after which the connection is of no use.
func (l *link) hangUp(to string, r protocol.Reply) error {
	l.dead = true
	if r.Code/100 < 4 {
		return fmt.Errorf("%w: to %s it said %q", errOutOfStep, to, r.Error())
	}
	return said(to, r)
}

// maxSaid is how much of a server's text is passed back, in octets.
const maxSaid = 400

// outcome passes a final reply back: 2yz, 4yz and 5yz stay what they are. 421 is about
// the other server's connection and not about ours. What says that the server wants TLS or
// AUTH first, or does not know the command, is about the administrator's work: no mail
// bounces for it.
func (l *link) outcome(r protocol.Reply) delivery.Handover {
	h := delivery.Handover{Target: l.host.String()}
	r.Text = strings.ReplaceAll(r.Text, "\n", " ")
	if len(r.Text) > maxSaid {
		r.Text = strings.ToValidUTF8(r.Text[:maxSaid], "") + "..."
	}
	h.Reply = r
	switch {
	case r.OK():
		return h
	case r.Code == 421:
		l.dead = true
		h.Reply.Code = 451
	}
	if h.Reply.Enhanced == (protocol.Enhanced{}) {
		h.Reply.Enhanced[0] = uint16(r.Code / 100) // not ours to guess why
	}
	h.Err = errors.New(l.host.String() + " said: " + r.Error())
	switch r.Code {
	case 530, 534, 535, 538: // RFC 3207 section 4, RFC 4954 section 6
		h.Reply, h.Err = protocol.Reply{}, fmt.Errorf("%w: %w", delivery.ErrMisconfigured, h.Err)
	case 502, 503: // RFC 5321 section 4.2.4, and out of order
		h.Reply = protocol.Reply{}
	}
	return h
}
