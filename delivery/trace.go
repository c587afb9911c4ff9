package delivery

import (
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
//	X-Original-To: what the sender wrote, if it is known and differs
//	Delivered-To: this recipient
//	Received: from client by us with LMTP id ... for <recipient>; date
//
// Delivered-To is what the next delivery finds a loop by.
func (o *TraceOptions) header(m *message, r *recipient, now time.Time) []byte {
	to := printable(r.addr.String())
	b := make([]byte, 0, 512)
	b = append(b, "Return-Path: <"...)
	b = append(b, printable(m.from)...)
	b = append(b, ">\n"...)
	if r.orig != "" && r.orig != to {
		b = append(b, "X-Original-To: "...)
		b = append(b, printable(r.orig)...)
		b = append(b, '\n')
	}
	b = append(b, "Delivered-To: "...)
	b = append(b, to...)
	b = append(b, "\nReceived: "...)
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
	b = append(b, "\n\tfor <"...)
	b = append(b, to...)
	b = append(b, ">; "...)
	b = now.AppendFormat(b, "Mon, 2 Jan 2006 15:04:05 -0700")
	b = append(b, '\n')
	if o.CRLF {
		return []byte(strings.ReplaceAll(string(b), "\n", "\r\n"))
	}
	return b
}

// receivedFrom is the FROM clause for a client of the protocol: the name that it
// gave itself and, over TCP, the address that the kernel knows (RFC 5321 section
// 4.4). A Unix peer has no address to give.
func receivedFrom(s *protocol.Session) string {
	from := "from " + atomOnly(s.Hello)
	if a, ok := s.RemoteAddr.(*net.TCPAddr); ok {
		ip := a.IP.String()
		if strings.Contains(ip, ":") {
			ip = "IPv6:" + ip
		}
		from += " ([" + ip + "])"
	}
	return from
}

// atomOnly keeps a client's name from breaking the structure of the field.
func atomOnly(s string) string {
	return strings.Map(func(c rune) rune {
		if c <= ' ' || c == 0x7f || c == utf8.RuneError || strings.ContainsRune(`()<>;,"\`, c) {
			return '?'
		}
		return c
	}, s)
}

// printable keeps an address on its line. The protocol lets no control character
// through; a command line might.
func printable(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return strings.Map(func(c rune) rune {
				if c < ' ' || c == 0x7f {
					return '?'
				}
				return c
			}, s)
		}
	}
	return s
}
