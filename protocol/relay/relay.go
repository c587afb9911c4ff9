// Package relay hands the messages of a [protocol.Server] on to another server, over
// SMTP or LMTP, with that server's own replies for each recipient. It has no queue:
// what the next server does not take now is refused with its reply, or with 451
// 4.4.1 where it cannot be reached, and stays with the client.
//
// It is a client of go-smtp's, with what that leaves out: messages go by DATA, also
// where the next server offers CHUNKING, so that BODY=BINARYMIME cannot be passed on;
// and the recipients are settled when the next server's replies are all there, not one
// by one as they come. STARTTLS and AUTH are not tried: TLS is from the start or not
// at all.
//
//	relay.go    Relay, and the address of the next server
//	link.go     a connection to it
//	content.go  the message on its way
package relay

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// Relay is a handler that passes messages on. Set its fields before the first use; its
// methods are safe for concurrent use. Without Policy it makes a connection for each
// message.
//
// The next server gets CR LF in place of every CR or LF that stands alone: RFC 5321
// section 2.3.8 forbids a client to send them. It gets the parameters that it offers
// to take; a message that it cannot take as it is, for want of 8BITMIME or SMTPUTF8,
// is refused, and so is one of BODY=BINARYMIME. A recipient that is given twice is
// passed on once, and each has that reply.
//
// A Relay to SMTP has one reply for all recipients that the next server accepted; a
// Server of mode SMTP has one for a message in any case. There, let Policy pass the
// recipients on as they come, or a refusal of one of them is a refusal of all.
type Relay struct {
	// Mode is what the next server speaks.
	Mode protocol.Mode
	// Network and Addr are where it is, for net.Dial: "tcp" or "unix".
	Network, Addr string
	// Hello is the name to greet it with; default os.Hostname.
	Hello string
	// XPeer adds an X-Peer field with the client's address at the end of the header, as
	// the proxies of Python's smtpd and aiosmtpd do.
	XPeer bool
	// TLS secures connections from the start; nil: plain.
	TLS *tls.Config
	// Timeout bounds the wait for a connection, for each reply, and for the next server
	// to take a piece of data; default 5 minutes (RFC 5321 section 4.5.3.2). The wait
	// for the final reply ends with the context of Deliver.
	Timeout time.Duration

	mu    sync.Mutex
	links map[*protocol.Session]*link // idle ones, with Policy
}

// Parse makes a Relay of the address of the next server:
//
//	smtp://HOST[:PORT]  port 25 by default
//	lmtp://HOST:PORT
//	smtp:/PATH, lmtp:/PATH  a Unix socket; smtp:///PATH too
//	HOST:PORT           as smtp://
//	/PATH               as lmtp:/PATH
func Parse(url string) (*Relay, error) {
	r := &Relay{Network: "tcp"}
	rest := url
	if scheme, after, ok := strings.Cut(url, ":"); ok && (strings.HasPrefix(after, "/") || scheme == "smtp" || scheme == "lmtp") {
		switch scheme {
		case "smtp":
		case "lmtp":
			r.Mode = protocol.LMTP
		default:
			return nil, fmt.Errorf("%q: the scheme is smtp or lmtp", url)
		}
		rest = after
	} else if strings.HasPrefix(url, "/") {
		r.Mode = protocol.LMTP
	}
	switch host, ok := strings.CutPrefix(rest, "//"); {
	case ok && !strings.HasPrefix(host, "/"):
		rest = host
		if _, _, err := net.SplitHostPort(host); err != nil && r.Mode == protocol.SMTP && host != "" {
			rest = net.JoinHostPort(strings.Trim(host, "[]"), "25")
		}
	case ok:
		rest = host // smtp:///path
	}
	if strings.HasPrefix(rest, "/") {
		r.Network, r.Addr = "unix", rest
		return r, nil
	}
	r.Addr = rest
	if host, port, err := net.SplitHostPort(rest); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("%q: write smtp://HOST:PORT, lmtp://HOST:PORT or lmtp:/PATH", url)
	}
	return r, nil
}

// Deliver implements protocol.Handler. The message is on its way while it arrives.
func (r *Relay) Deliver(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
	l := r.claim(tx.Session)
	if l == nil || !l.prepared(tx) {
		var reply protocol.Reply
		if l, reply = r.begin(ctx, l, tx); !reply.OK() {
			if l != nil {
				r.keep(tx.Session, l)
			}
			return reply
		}
		for i := range tx.Rcpts {
			l.rcpt(tx, &tx.Rcpts[i])
		}
	}
	// It may have been made with another context, of the session.
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	l.send(body, r.field(tx))
	if !stop() {
		l.dead = true
	}
	r.settle(tx, l)
	r.keep(tx.Session, l)
	return nil
}

// settle gives each recipient its reply.
func (r *Relay) settle(tx *protocol.Transaction, l *link) {
	for i := range tx.Rcpts {
		tx.Settle(i, l.replies[key(tx.Rcpts[i].Path)])
	}
	l.open = false
}

// begin opens a transaction at the next server, on l if that is one that lives, or on
// a new connection.
func (r *Relay) begin(ctx context.Context, l *link, tx *protocol.Transaction) (*link, protocol.Reply) {
	if l != nil {
		if reply := l.mail(tx, r.field(tx)); !l.dead {
			return l, reply
		}
		l.quit() // it had been idle too long
	}
	l, reply := r.connect(ctx)
	if !reply.OK() {
		return nil, reply
	}
	if reply = l.mail(tx, r.field(tx)); !reply.OK() {
		l.quit()
	}
	return l, reply
}

// Policy makes the Relay pass each command on as it comes, so that the client has the
// next server's reply to each MAIL and RCPT. There is a connection for each session
// then, for all of its messages. Without it all of that comes with the data. Other
// policies may stand before it in a Chain; one that rewrites recipients after it undoes
// what it did.
func (r *Relay) Policy() protocol.Policy {
	return protocol.Policy{
		Mail: func(ctx context.Context, tx *protocol.Transaction) protocol.Reply {
			l, reply := r.begin(ctx, r.claim(tx.Session), tx)
			if l != nil && !l.dead {
				r.hold(tx.Session, l)
			}
			return bare(reply)
		},
		Rcpt: func(_ context.Context, tx *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
			l := r.claim(tx.Session)
			if l == nil {
				return unreachable
			}
			defer r.hold(tx.Session, l)
			if !l.open {
				return unreachable
			}
			return bare(l.rcpt(tx, rcpt))
		},
		Close: func(_ context.Context, s *protocol.Session, _ error) {
			if l := r.claim(s); l != nil {
				l.quit()
			}
		},
	}
}

// bare takes the text off a reply that accepts: the client gets this server's own.
func bare(r protocol.Reply) protocol.Reply {
	if r.OK() {
		return protocol.Reply{}
	}
	return r
}

// claim takes the session's connection, if it has one: nobody else uses it then.
func (r *Relay) claim(s *protocol.Session) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[s]
	delete(r.links, s)
	if l != nil {
		l.held = true
	}
	return l
}

// hold gives it back.
func (r *Relay) hold(s *protocol.Session, l *link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.links == nil {
		r.links = make(map[*protocol.Session]*link)
	}
	l.held = true
	r.links[s] = l
}

// keep is hold for a connection that came from there, and the end of any other.
func (r *Relay) keep(s *protocol.Session, l *link) {
	if l.held && !l.dead {
		r.hold(s, l)
		return
	}
	l.quit()
}

// field is the one to add to the header; "" for none.
func (r *Relay) field(tx *protocol.Transaction) string {
	if !r.XPeer {
		return ""
	}
	return "X-Peer: " + tx.Session.ClientAddr() + "\r\n"
}

func (r *Relay) timeout() time.Duration {
	if r.Timeout > 0 {
		return r.Timeout
	}
	return 5 * time.Minute
}

func (r *Relay) hello() string {
	if r.Hello != "" {
		return r.Hello
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}
