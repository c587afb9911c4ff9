package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// Transport takes messages to where they end, other than into a Maildir.
//
// Deliver calls done exactly once for each index of p.Rcpts, in any order and from
// any goroutine, each as soon as its outcome is known, and returns when all calls
// have returned; nothing uses p.Open afterwards. ctx ends the attempt, and Deliver
// returns soon then.
//
// A Handover without an error and with a zero or positive Reply says that the message
// is the other side's from now on. Whatever is in doubt is a failure: it comes again.
type Transport interface {
	Deliver(ctx context.Context, p *Parcel, done func(i int, h Handover))
}

// PerRecipient is what a Transport is besides if it is the last one to see a message:
// each recipient gets the trace header of a final delivery then, with Return-Path and
// Delivered-To, and a Parcel of its own. Any other gets a Received field, and a Parcel
// for all recipients with the same Host.
type PerRecipient interface{ FinalDelivery() }

// Parcel is a message for one Transport. It is read-only.
type Parcel struct {
	ID      string // of the message, as in the log
	QueueID string // the client's name for it; "" if not known
	From    string // reverse-path without angle brackets; "" is the null one
	Mail    protocol.MailParams
	Host    string // "HOST" or "HOST:PORT" of the user record; "" if it names none
	Rcpts   []ParcelRcpt
	// Sum is the same each time that the message comes; 0: not known. What may have it
	// already is best asked first.
	Sum  uint64
	Size int64 // octets that Open gives
	// WireSize is the same with CR LF at the end of each line.
	WireSize int64
	// Open gives header and body from the beginning, as often as it is called and to
	// several readers at once. Lines end as in mailboxes, with LF or with CR LF,
	// but for a message of BODY=BINARYMIME, which is given as it came.
	Open func() io.Reader
}

// ParcelRcpt is one recipient of a Parcel.
type ParcelRcpt struct {
	Address string         // forward-path without angle brackets
	Parts   userdb.Address // the address as it was looked up
	User    string         // the user that the database found
	ORcpt   string         // the address that the sender wrote, "" if not known
	Notify  protocol.Notify
}

// Handover is what became of one recipient.
type Handover struct {
	Reply  protocol.Reply // what the other side said; zero: see Err, or it took the message
	Err    error          // the cause of a failure, for the log; the table of replies knows it if Reply is zero
	Target string         // where it went, for the log
}

// Causes of failures that transports have in common. Errors that wrap one of them are
// answered as the table of replies says.
var (
	// ErrUnreachable: no host of a pool took the connection.
	ErrUnreachable = errors.New("next server cannot be reached")
	// ErrBroken: the other side went away, or was out of step, and it is not known
	// whether it has the message.
	ErrBroken = errors.New("next server did not answer")
	// ErrUnsafe: the connection could not be secured as the configuration wants it.
	ErrUnsafe = errors.New("connection to the next server is not safe")
	// ErrBusy: too many deliveries of this transport at once.
	ErrBusy = errors.New("too many deliveries at once")
	// ErrSlow: its time limit has ended the delivery.
	ErrSlow = errors.New("delivery took too long")
	// ErrMisconfigured: the administrator has to mend the transport.
	ErrMisconfigured = errors.New("transport is misconfigured")
	// ErrNotAsIs: the next server cannot take such a message or address. Permanent.
	ErrNotAsIs = errors.New("next server cannot take this message as it is")
	// ErrNoUTF8: the same for want of SMTPUTF8. Permanent.
	ErrNoUTF8 = errors.New("next server has no SMTPUTF8")
	// ErrNoRequireTLS: the same for want of REQUIRETLS (RFC 8689 section 4.2.1). Permanent.
	ErrNoRequireTLS = errors.New("next server has no REQUIRETLS")
)

// errRelayLoop: this host has passed the message on too often.
var errRelayLoop = fmt.Errorf("message has been relayed by this host more than %d times: user records of two hosts may name each other", maxRelayed)

// maxRelayed is how often one message may be relayed by this host. More than once
// happens: a user whose mail is forwarded on another host to one whose host is a third.
const maxRelayed = 4

// Transports are the ways that mail may take besides into Maildirs.
type Transports struct {
	// Named are those that a configuration knows by name. "maildir" is the Agent
	// itself and cannot be among them.
	Named map[string]Transport
	// Default is the name for whom neither user record nor domain names one; "" is
	// "maildir".
	Default string
	// Domains name a transport by recipient domain, in lower case.
	Domains map[string]string
	// Hosts is the name of the one for user records that name a host only; "": such
	// a record is an error.
	Hosts string
	// Self says whether a host of a user record, with its port or "", is this
	// machine, whose mail is delivered here; nil: none is.
	Self func(host, port string) bool
}

const maildirName = "maildir"

// route is the way to a Transport.
type route struct {
	name    string
	to      Transport
	host    string
	address string // of the recipient there
}

// route finds the transport of a user. nil: a Maildir. Its errors are
// userdb.ErrBadRecord, or ErrMisconfigured.
func (t *Transports) route(user *userdb.User, addr userdb.Address) (*route, error) {
	bad := func(format string, args ...any) (*route, error) {
		return nil, fmt.Errorf("%w: user %q of %s: "+format, append([]any{userdb.ErrBadRecord, user.Name, user.Source}, args...)...)
	}
	name := user.Extra["transport"]
	named := name != ""
	host, err := recordHost(user)
	if err != nil {
		return bad("%w", err)
	}
	if host != "" && (name == "" || t.Named[name] != nil) {
		h, port := splitHost(host)
		if t.Self != nil && t.Self(h, port) {
			return nil, nil
		}
		if name == "" {
			if name = t.Hosts; name == "" {
				return bad("host %q, and there is no [[transport]] of type relay for it", host)
			}
		}
	}
	if name == "" {
		name = t.Domains[addr.Domain]
	}
	if name == "" {
		name = t.Default
	}
	if name == "" || name == maildirName {
		return nil, nil
	}
	r := &route{name: name, to: t.Named[name], host: host, address: addr.String()}
	if r.to == nil && named {
		return bad("transport %q is not configured", name)
	}
	if r.to == nil {
		return nil, fmt.Errorf("%w: there is no transport %q", ErrMisconfigured, name)
	}
	if dest := user.Extra["destuser"]; dest != "" && host != "" {
		if r.address, err = destination(dest, addr); err != nil {
			return bad("destuser %q: %w", dest, err)
		}
	}
	return r, nil
}

// recordHost is the host of a user record with its port: "10.0.0.1", "[::1]:24". With
// "proxy_maybe" or without any such field the host counts too: it is for transports
// alone that a database gives it to us.
func recordHost(user *userdb.User) (string, error) {
	host, port := user.Extra["host"], user.Extra["port"]
	if host == "" {
		if isYes(user.Extra["proxy"]) {
			return "", errors.New("proxy without a host")
		}
		return "", nil
	}
	if p, ok := user.Extra["proxy"]; ok && !isYes(p) && !isYes(user.Extra["proxy_maybe"]) {
		return "", nil
	}
	if strings.ContainsFunc(host, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '/' || c == '%' }) || len(host) > 260 {
		return "", fmt.Errorf("host %+q is none", host)
	}
	h, p := splitHost(host)
	if port != "" {
		p = port
	}
	for _, c := range p {
		if c < '0' || c > '9' || len(p) > 5 {
			return "", fmt.Errorf("port %+q is none", p)
		}
	}
	if p == "" {
		return h, nil
	}
	return net.JoinHostPort(h, p), nil
}

// splitHost takes HOST, HOST:PORT, an IPv6 address with and without brackets.
func splitHost(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return h, p
	}
	return strings.Trim(s, "[]"), ""
}

func isYes(s string) bool {
	switch strings.ToLower(s) {
	case "yes", "y", "true", "1":
		return true
	}
	return false
}

// destination is the address of a recipient who has another name on the next server:
// what follows the delimiter stays, and the domain where the name has none.
func destination(dest string, addr userdb.Address) (string, error) {
	to, err := userdb.Rules{}.ParseString(dest)
	if err != nil {
		return "", err
	}
	if to.Domain == "" {
		to.Domain = addr.Domain
	}
	to.Full = to.Local
	if addr.Detail != "" && len(addr.Full) > len(addr.Detail) {
		to.Full += addr.Full[len(addr.Full)-len(addr.Detail)-1:]
	}
	return to.String(), nil
}

// routeKey tells the ways apart that two recipients go.
func (r *recipient) routeKey() (k [3]string) {
	if r.via != nil {
		k = [3]string{r.via.name, r.via.host, r.via.address}
	}
	return k
}

// handed is the outcome of a copy that a Transport took, or did not.
func (o *Outcome) handed(name string, h Handover, size int64, took time.Duration) {
	o.Transport, o.Target, o.Err, o.Write = name, h.Target, h.Err, took
	switch {
	case h.Err == nil && h.Reply.OK():
		o.Size = size
		o.Reply = handedOn(o.ID, h.Reply.Text)
	case h.Reply.Code != 0 && !h.Reply.OK():
		o.Reply = h.Reply
	default:
		o.Reply = replyFor(h.Err)
	}
}
