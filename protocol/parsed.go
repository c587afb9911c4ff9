package protocol

import (
	"context"
	"io"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
)

// Parsed makes a handler of a function that takes parsed messages. Their header has
// three fields more, in place of any of that name: X-Peer, the client's address as
// ClientAddr gives it, X-MailFrom, and X-RcptTo with commas between recipients.
//
// The body of the message arrives while it is read: commit nothing before m.Body has
// given io.EOF. What cannot be parsed is refused with 554 5.6.0. The error that
// handle returns is what Deliver returns.
func Parsed(handle func(ctx context.Context, m *mail.Message, tx *Transaction) error) Handler {
	return HandlerFunc(func(ctx context.Context, tx *Transaction, body *Body) error {
		m, err := mail.ReadMessage(body)
		if err != nil {
			if _, err := body.WriteTo(io.Discard); err != nil {
				return err // the server's reason goes before ours
			}
			return Reply{Code: 554, Enhanced: Enhanced{5, 6, 0}, Text: "Error: malformed message header"}
		}
		header := textproto.MIMEHeader(m.Header)
		header.Set("X-Peer", tx.Session.ClientAddr())
		header.Set("X-MailFrom", tx.From.String())
		var to []string
		for i := range tx.Rcpts {
			to = append(to, tx.Rcpts[i].Path.String())
		}
		header.Set("X-RcptTo", strings.Join(to, ", "))
		return handle(ctx, m, tx)
	})
}

// ClientAddr is RemoteAddr without its port; "local" where it is no network address.
func (s *Session) ClientAddr() string {
	if s != nil && s.RemoteAddr != nil {
		if host, _, err := net.SplitHostPort(s.RemoteAddr.String()); err == nil {
			return host
		}
	}
	return "local"
}
