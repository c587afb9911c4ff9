package delivery

import (
	"bytes"
	"encoding/hex"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lmtpd/lmtpd/protocol"
)

// TraceOptions say how the header of a copy speaks about this host.
type TraceOptions struct {
	Hostname string           // the "by" of Received
	CRLF     bool             // line ends of the header, as of the body
	Clock    func() time.Time // nil: time.Now
	Fields   TraceFields      // what is written
}

func (o *TraceOptions) now() time.Time {
	if o.Clock != nil {
		return o.Clock()
	}
	return time.Now()
}

// header is what a final delivery puts before the message (RFC 5321 section 4.4):
//
//	Return-Path: <sender>
//	Delivery-Date: date                    only if Fields say so
//	Envelope-To: what the sender wrote     only if Fields say so
//	X-Original-To: what the sender wrote, if it is known and differs
//	Delivered-To: this recipient
//	Received: from client by us with LMTP id ... for <recipient>; date
//
// Delivered-To is what the next delivery finds a loop by. Lines are folded so that
// none passes the 998 octets of RFC 5322 section 2.1.1 with any address that the
// address rules let through. An empty line follows where the message has no header
// of its own: without it a reader would take the text for one.
//
// Without a recipient it is the header of a file that several share: it has none of the
// fields and clauses that name one.
func (o *TraceOptions) header(m *message, r *recipient, now time.Time) []byte {
	b := make([]byte, 0, 512)
	line := func(field TraceFields, parts ...string) {
		if o.Fields.has(field) {
			for _, part := range parts {
				b = append(b, part...)
			}
			b = append(b, '\n')
		}
	}
	var to, orig string
	if r != nil {
		to = printable(r.addr.String())
		if orig = to; r.orig != "" {
			orig = printable(r.orig)
		}
	}
	line(TraceReturnPath, "Return-Path: <", printable(m.from), ">")
	if o.Fields.has(TraceDeliveryDate) {
		line(TraceDeliveryDate, "Delivery-Date: ", now.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	}
	if r != nil {
		line(TraceEnvelopeTo, "Envelope-To: ", orig)
		if r.orig != "" && r.orig != to {
			line(TraceOriginalTo, "X-Original-To: ", orig)
		}
		line(TraceDeliveredTo, "Delivered-To: ", to)
	}
	b = append(b, "Received: "...)
	b = append(b, m.received...)
	b = append(b, "\n\tby "...)
	b = append(b, o.Hostname...)
	b = append(b, " (lmtpd)"...)
	if m.with != "" {
		b = append(b, " with "...)
		b = append(b, m.with...)
	}
	b = append(b, " id "...)
	b = append(b, m.id...)
	if r != nil {
		b = append(b, "\n\tfor <"...)
		b = append(b, to...)
		b = append(b, ">; "...)
	} else {
		b = append(b, ";\n\t"...)
	}
	b = now.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700")
	b = append(b, '\n')
	if m.spooled != nil && m.spooled.header.bare {
		b = append(b, '\n')
	}
	if o.CRLF || m.binary {
		return bytes.ReplaceAll(b, lf, crlf)
	}
	return b
}

// relayed is what a relay puts before the message: a Received field, and an empty line
// where the message has no header. It does not name the recipients, who may be several.
// A message that comes again gets the same field again: its time is that of the first
// time, and its id the client's name for it, else a hash of it, never one of ours.
func (o *TraceOptions) relayed(m *message, r *recipient, at time.Time) []byte {
	id := r.queueName(m)
	if id == "" && m.claim != nil {
		id = hex.EncodeToString(m.spooled.sum[:8])
	} else if id == "" {
		id = m.id
	}
	b := make([]byte, 0, 256)
	b = append(b, "Received: "...)
	b = append(b, m.received...)
	b = append(b, "\n\t"...)
	b = append(b, o.relayMark()...)
	if m.with != "" {
		b = append(b, " with "...)
		b = append(b, m.with...)
	}
	b = append(b, " id "...)
	b = append(b, domainOnly(id, false)...)
	b = append(b, ";\n\t"...)
	b = at.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700")
	b = append(b, '\n')
	if m.spooled.header.bare {
		b = append(b, '\n')
	}
	if o.CRLF || m.binary {
		return bytes.ReplaceAll(b, lf, crlf)
	}
	return b
}

// relayMark is what the Received fields of a relay are counted by.
func (o *TraceOptions) relayMark() string { return "by " + o.Hostname + " (lmtpd relay)" }

// queueName is the client's name for the message, "" if it is not known.
func (r *recipient) queueName(m *message) string {
	if r.queue != "" {
		return r.queue
	}
	return m.spooled.header.queueID
}

// receivedFrom is the FROM clause for a client of the protocol: the name that it
// gave itself and, over TCP, the address that the kernel knows (RFC 5321 section
// 4.4). A Unix peer has no address to give.
func receivedFrom(tx *protocol.Transaction) string {
	s := tx.Session
	from := "from " + domainOnly(s.Hello, tx.Mail.UTF8)
	if a, ok := s.RemoteAddr.(*net.TCPAddr); ok {
		ip := a.IP.String()
		if strings.Contains(ip, ":") {
			ip = "IPv6:" + ip
		}
		from += " ([" + ip + "])"
	}
	return from
}

// domainOnly keeps a client's name from breaking the structure of the field.
// Without SMTPUTF8 the message must stay what older software can read (RFC 6531
// section 3.7.3).
func domainOnly(s string, utf8OK bool) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c == 0x7f || c == utf8.RuneError || c >= 0x80 && !utf8OK || strings.ContainsRune(`()<>;,"\`, c) {
			return '?'
		}
		return c
	}, s)
}

// printable keeps an address on its line, and the header in UTF-8. The protocol
// lets few of these octets through; a command line lets all.
func printable(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f || s[i] >= 0x80 && !utf8.ValidString(s) {
			return strings.Map(func(c rune) rune {
				if c < ' ' || c == 0x7f || c == utf8.RuneError {
					return '?'
				}
				return c
			}, s)
		}
	}
	return s
}
