package protocoltest

import (
	"context"
	"net"

	"github.com/lmtpd/lmtpd/protocol"
)

// Stage is a step of a session at which something can go wrong.
type Stage uint8

const (
	Connect Stage = iota // before the greeting
	Hello
	Mail
	Rcpt
	Data // before 354
	Body // when the handler is called, before the first octet of the message
)

// Fault is something that goes wrong on purpose, and at the same place each time. What
// it has of Stall, Drop and Reply happens in that order.
type Fault struct {
	Stage Stage
	// Every says which times the stage is hit: 3 is the third, the sixth and so on,
	// of all sessions together; 0 and 1 are every time.
	Every int
	// Stall holds the session up until it is closed, or the server is.
	Stall <-chan struct{}
	// Drop closes the connection without a word; not at Body.
	Drop bool
	// Reply is the answer; a zero one is that of a server without the fault.
	Reply protocol.Reply
}

type fault struct {
	Fault
	times int // guarded by Recorder.mu
}

// Fail adds a fault, for a server that was made with the Recorder as its handler by a
// function of this package. At each stage the first fault that is due counts.
func (r *Recorder) Fail(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &fault{Fault: f})
}

// strike gives the reply of the fault that is due at a stage.
func (r *Recorder) strike(ctx context.Context, stage Stage) protocol.Reply {
	r.mu.Lock()
	var due *fault
	for _, f := range r.faults {
		if f.Stage != stage {
			continue
		}
		if f.times++; f.times%max(f.Every, 1) == 0 && due == nil {
			due = f
		}
	}
	r.mu.Unlock()
	if due == nil {
		return protocol.Reply{}
	}
	if due.Stall != nil {
		select {
		case <-due.Stall:
		case <-ctx.Done():
		}
	}
	if due.Drop {
		return protocol.Reply{Code: 421, Then: protocol.CloseNow}
	}
	return due.Reply
}

// Policy has the faults in it. The servers of this package that are made with a
// Recorder have it already; with other policies it goes into a protocol.Chain.
func (r *Recorder) Policy() protocol.Policy {
	return protocol.Policy{
		Connect: func(ctx context.Context, _ *protocol.Session) protocol.Reply { return r.strike(ctx, Connect) },
		Hello: func(ctx context.Context, _ *protocol.Session, _ string) protocol.Reply {
			return r.strike(ctx, Hello)
		},
		Mail: func(ctx context.Context, _ *protocol.Transaction) protocol.Reply { return r.strike(ctx, Mail) },
		Rcpt: func(ctx context.Context, _ *protocol.Transaction, _ *protocol.Recipient) protocol.Reply {
			return r.strike(ctx, Rcpt)
		},
		Data: func(ctx context.Context, _ *protocol.Transaction) protocol.Reply { return r.strike(ctx, Data) },
	}
}

// Link is a connection that is not as good as those within a machine.
type Link struct {
	// Chunk is how many octets go through at a time, in both directions; 0: any.
	Chunk int
	// Wait is called before each piece, such as to sleep, or to note it; may be nil.
	Wait func()
}

// slowConn is a connection over such a link.
type slowConn struct {
	net.Conn
	Link
}

func (c *slowConn) Read(p []byte) (int, error) {
	c.wait()
	return c.Conn.Read(p[:c.piece(len(p))])
}

func (c *slowConn) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		c.wait()
		var n int
		n, err = c.Conn.Write(p[:c.piece(len(p))])
		written += n
		p = p[n:]
	}
	return written, err
}

func (c *slowConn) piece(n int) int {
	if c.Chunk > 0 {
		return min(n, c.Chunk)
	}
	return n
}

func (c *slowConn) wait() {
	if c.Wait != nil {
		c.Wait()
	}
}
