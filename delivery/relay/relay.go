// Package relay is the transport that hands messages to other servers, over LMTP or
// SMTP, and passes back what they say to each recipient. It has no queue: what no server
// takes now is answered 4xx and comes again.
//
//	relay.go    Relay: from parcel to outcome, one server after the other
//	pool.go     connections, kept for the next message; servers that are down
//	link.go     one connection: greeting, TLS, commands and replies
//	send.go     one transaction on it
//	content.go  the message as it goes over the wire
//
// Which failures may be tried with another server: all up to the end of the data. From
// then on the first one may have the message, and the recipients that have no reply yet
// are delivery.ErrBroken.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
)

// Relay is a delivery.Transport. Set its fields before the first use; its methods are
// safe for concurrent use. It must not be copied.
type Relay struct {
	// Mode is what the servers speak.
	Mode protocol.Mode
	// Hosts are a pool: any of them will do, and a message that comes again goes to the
	// same one first. A parcel with a host of its own goes to that.
	Hosts []Host
	// Port is that of such a host which has none; 0: 24 for LMTP, 25 for SMTP.
	Port int
	// Hello is the name to greet with.
	Hello string
	// TLS says how connections over TCP are secured; those over Unix sockets are not.
	TLS Security
	// TLSConfig has the certificates to trust; its ServerName is set for each host.
	// nil: those of the system.
	TLSConfig *tls.Config

	Connections int           // to one host at once; 0: 20
	Idle        time.Duration // how long one is kept without use; 0: 30 seconds
	Timeout     time.Duration // for a whole parcel; 0: 5 minutes, half of what Postfix waits
	Connect     time.Duration // for a connection, up to where mail may be sent; 0: 20 seconds
	Down        time.Duration // how long a host that failed is tried last; 0: one minute
	Doubt       time.Duration // how long a message goes nowhere but to the host that may have it; 0: one hour

	// OwnPorts are the TCP ports that this program listens on itself: a connection that
	// leads to one of them at this machine is a loop.
	OwnPorts []int
	// Log hears when a host fails and when it is back; nil: slog.Default.
	Log *slog.Logger

	mu     sync.Mutex
	next   uint64 // where a parcel without a sum begins in the pool
	hosts  map[Host]*hostState
	doubts map[uint64]doubt // by the sum of the message
}

// Host is where a server listens, as net.Dial wants it: "tcp" and "unix".
type Host struct{ Network, Addr string }

// String gives "tcp:HOST:PORT" or "unix:/path".
func (h Host) String() string { return h.Network + ":" + h.Addr }

// Security is how a connection is protected.
type Security int

const (
	TLSOff           Security = iota // not at all
	TLSOpportunistic                 // by STARTTLS where that works; the certificate may be anybody's
	TLSRequired                      // by STARTTLS, with a certificate for the host
	TLSImplicit                      // from the start, with a certificate for the host
)

var securityNames = [...]string{"off", "opportunistic", "required", "implicit"}

// String returns the name used in the configuration.
func (s Security) String() string {
	if s < 0 || int(s) >= len(securityNames) {
		return fmt.Sprintf("security(%d)", int(s))
	}
	return securityNames[s]
}

// UnmarshalText reads off, opportunistic, required or implicit.
func (s *Security) UnmarshalText(text []byte) error {
	for i, name := range securityNames {
		if name == string(text) {
			*s = Security(i)
			return nil
		}
	}
	return fmt.Errorf("tls %q is none of %s", text, strings.Join(securityNames[:], ", "))
}

// maxRcpts is what every server takes in one transaction (RFC 5321 section 4.5.3.1.8).
const maxRcpts = 100

// Deliver implements delivery.Transport.
func (r *Relay) Deliver(ctx context.Context, p *delivery.Parcel, done func(int, delivery.Handover)) {
	ctx, cancel := context.WithTimeoutCause(ctx, orDefault(r.Timeout, 5*time.Minute), errSlow)
	defer cancel()
	// Addresses that want SMTPUTF8 are no reason to refuse the others.
	var plain, utf8 []int
	for i := range p.Rcpts {
		if isASCII(p.Rcpts[i].Address) {
			plain = append(plain, i)
		} else {
			utf8 = append(utf8, i)
		}
	}
	if p.Mail.UTF8 || !isASCII(p.From) {
		plain, utf8 = slices.Sorted(slices.Values(append(plain, utf8...))), nil
	}
	for _, all := range [][]int{plain, utf8} {
		for open := range slices.Chunk(all, maxRcpts) {
			r.batch(ctx, &batch{p: p, done: done, open: slices.Clone(open)})
		}
	}
}

var errSlow = errors.New("time limit of the transport")

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// batch are recipients of one transaction.
type batch struct {
	p    *delivery.Parcel
	done func(int, delivery.Handover)
	open []int // indexes into p.Rcpts of those without an outcome
}

// settle gives the recipients that are left one outcome.
func (b *batch) settle(h delivery.Handover) {
	for _, i := range b.open {
		b.done(i, h)
	}
	b.open = nil
}

// batch tries one host after the other until each recipient has an outcome.
func (r *Relay) batch(ctx context.Context, b *batch) {
	var failed []error
	var tried []string
	hosts, err := r.order(b.p.Host, b.p.Sum)
	if err != nil {
		failed = append(failed, err)
	}
	for _, h := range hosts {
		if len(b.open) == 0 {
			return
		}
		if ctx.Err() != nil {
			failed = append(failed, context.Cause(ctx))
			break
		}
		tried = append(tried, h.String())
		if err := r.try(ctx, h, b); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", h, err))
		}
	}
	b.settle(delivery.Handover{Err: failure(failed), Target: strings.Join(tried, " ")})
}

// failure is one error for all servers that could not be used; what the table of
// replies knows in it counts. It is permanent only if none of them can take the message.
func failure(failed []error) error {
	all := &joined{failed: failed, known: slices.DeleteFunc(slices.Clone(failed), lacks)}
	if len(failed) > 0 && len(all.known) == 0 {
		all.known = failed
		return all
	}
	for _, known := range []error{delivery.ErrMisconfigured, delivery.ErrUnsafe, delivery.ErrBusy} {
		if errors.Is(all, known) {
			return all
		}
	}
	return fmt.Errorf("%w: %w", delivery.ErrUnreachable, all)
}

// lacks reports whether a server that works has not got what the message needs.
func lacks(err error) bool {
	return errors.Is(err, delivery.ErrNotAsIs) || errors.Is(err, delivery.ErrNoUTF8) || errors.Is(err, delivery.ErrNoRequireTLS)
}

// joined is errors.Join in one line.
type joined struct {
	failed []error
	known  []error // those of them that errors.Is looks at
}

func (j *joined) Unwrap() []error { return j.known }
func (j *joined) Error() string {
	var texts []string
	for _, err := range j.failed {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// try hands a batch to one host. The error is one after which the recipients that are
// left may go to another.
func (r *Relay) try(ctx context.Context, h Host, b *batch) error {
	state := r.use(h)
	defer r.unuse(state)
	start := time.Now()
	if err := state.enter(ctx); err != nil {
		return err
	}
	defer state.leave()
	if err := r.since(state, start); err != nil {
		return err
	}
	for l := r.idle(state); l != nil; l = r.idle(state) {
		err := l.send(ctx, b)
		r.keep(state, l)
		if !errors.Is(err, errStale) {
			return r.judgeLink(ctx, state, l, b.p.Sum, err)
		}
	}
	l, err := r.connect(ctx, h)
	if err != nil {
		return r.judge(state, err)
	}
	err = l.send(ctx, b)
	r.keep(state, l)
	return r.judgeLink(ctx, state, l, b.p.Sum, err)
}

// order is the hosts in the order in which they are tried: all of the pool, another one
// first for each message, those that are down last. A message that one of them may have
// goes to that alone, for it would be doubled elsewhere.
func (r *Relay) order(own string, sum uint64) ([]Host, error) {
	if own != "" {
		return []Host{r.recordHost(own)}, nil
	}
	if len(r.Hosts) == 0 {
		return nil, fmt.Errorf("%w: neither the transport nor the user record names a host", delivery.ErrMisconfigured)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sum == 0 {
		sum = r.next
		r.next++
	}
	now := time.Now()
	if d, ok := r.doubts[sum]; ok && now.Before(d.until) {
		return []Host{d.host}, nil
	}
	first := int(sum % uint64(len(r.Hosts)))
	var up, busy, down []Host
	for i := range r.Hosts {
		h := r.Hosts[(first+i)%len(r.Hosts)]
		switch s := r.hosts[h]; {
		case s != nil && now.Before(s.downUntil):
			down = append(down, h)
		case s != nil && len(s.slots) == cap(s.slots):
			busy = append(busy, h)
		default:
			up = append(up, h)
		}
	}
	return append(append(up, busy...), down...), nil
}

// recordHost is the host of a user record.
func (r *Relay) recordHost(text string) Host {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), ""
	}
	if port == "" {
		port = fmt.Sprint(r.port())
	}
	return Host{"tcp", net.JoinHostPort(host, port)}
}

func (r *Relay) port() int {
	def := 24
	if r.Mode == protocol.SMTP {
		def = 25
	}
	return orDefault(r.Port, def)
}

func (r *Relay) log() *slog.Logger {
	if r.Log == nil {
		return slog.Default()
	}
	return r.Log
}
