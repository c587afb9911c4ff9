package writer

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Client has copies written by the writer process. It does what maildir.Writer does,
// for an Agent. All fields but Address may be left alone; none may change after the
// first call. Its methods are safe for concurrent use.
type Client struct {
	Address string        // path of the writer's socket
	Wait    time.Duration // for a writer that cannot be reached, as while it restarts; 0: 5 s
	Grace   time.Duration // for the last results once the context is done; 0: 10 s
	Idle    int           // connections kept for the next request; 0: 32
	Counts  *Counts       // what is counted, several clients may share one; nil: nothing is

	own    Counts // of a client without Counts
	mu     sync.Mutex
	idle   []*packetConn // the one used last comes last
	closed bool
}

// Deliver writes the body to each target as maildir.Writer.Deliver does: done is
// called exactly once for each, and the error of a copy is a *maildir.Error in which
// errors.Is finds what the writer process found. Where the way to the writer fails it
// is ErrUnavailable, ErrLost or ErrRefused. A copy is never reported as delivered
// unless the writer process has said so.
//
// When ctx is done the writer is told, and copies that have their name by then are
// seen through. If it does not answer within Grace, the rest are ErrLost.
func (c *Client) Deliver(ctx context.Context, b maildir.Body, targets []maildir.Target, done func(i int, r maildir.Result)) {
	body, err := newOutgoing(&b)
	if err != nil {
		for i := range targets {
			done(i, c.failed(&targets[i], err))
		}
		return
	}
	defer body.close()
	parts := c.split(targets, done)
	var all sync.WaitGroup
	for n, part := range parts {
		q := &call{
			client: c, body: body, targets: targets, part: part, done: done,
			left: len(part), answered: make([]bool, len(part)),
		}
		if n == len(parts)-1 {
			q.run(ctx)
			break
		}
		all.Go(func() { q.run(ctx) })
	}
	all.Wait()
}

// CheckQuota asks the writer process what maildir.Writer.CheckQuota says.
func (c *Client) CheckQuota(ctx context.Context, t maildir.Target, size int64) (maildir.Usage, error) {
	if err := checkTarget(&t); err != nil {
		return maildir.Usage{}, c.failed(&t, err).Err
	}
	var res maildir.Result
	q := &call{
		client: c, body: &outgoing{Body: maildir.Body{Size: max(size, 0)}, fd: -1, memfd: -1}, asks: true,
		targets: []maildir.Target{t}, part: []int{0}, left: 1, answered: make([]bool, 1),
		done: func(_ int, r maildir.Result) { res = r },
	}
	q.run(ctx)
	return res.Usage, res.Err
}

// split gives the indexes of targets by request, and reports those that no request
// can hold.
func (c *Client) split(targets []maildir.Target, done func(int, maildir.Result)) (parts [][]int) {
	room := 0
	for i := range targets {
		if err := checkTarget(&targets[i]); err != nil {
			done(i, c.failed(&targets[i], err))
			continue
		}
		size := targetSize(&targets[i])
		if n := len(parts); n == 0 || len(parts[n-1]) == maxTargets || size > room {
			parts, room = append(parts, nil), maxAll
		}
		room -= size
		parts[len(parts)-1] = append(parts[len(parts)-1], i)
	}
	return parts
}

// failed is the result of a copy that the writer process has not reported.
func (c *Client) failed(t *maildir.Target, err error) maildir.Result {
	e := &maildir.Error{Op: opAsk, Path: c.Address, Err: err}
	if t.Owner != nil {
		e.UID, e.GID = t.Owner.UID, t.Owner.GID
	}
	return maildir.Result{Err: e}
}

// connect takes a connection that idles, or makes one.
func (c *Client) connect(ctx context.Context) (conn *packetConn, used bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		conn, c.idle = c.idle[n-1], c.idle[:n-1]
		c.mu.Unlock()
		return conn, true, nil
	}
	c.mu.Unlock()
	var d net.Dialer
	s, err := d.DialContext(ctx, network, c.Address)
	if err != nil {
		return nil, false, err
	}
	if conn, err = newPacketConn(s.(*net.UnixConn)); err != nil {
		return nil, false, err
	}
	c.counts().Made.Add(1)
	c.counts().Open.Add(1)
	return conn, false, nil
}

// drop closes a connection that connect has given.
func (c *Client) drop(conn *packetConn) {
	conn.conn.Close()
	c.counts().Open.Add(-1)
}

func (c *Client) counts() *Counts {
	if c.Counts == nil {
		return &c.own
	}
	return c.Counts
}

// keep takes a connection back on which nothing is under way.
func (c *Client) keep(conn *packetConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= orDefault(c.Idle, 32) {
		c.drop(conn)
		return
	}
	c.idle = append(c.idle, conn)
}

// Close closes the connections that idle, and the others when their requests are
// over. Deliver may still be called.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.idle {
		c.drop(conn)
	}
	c.idle = nil
	return nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
