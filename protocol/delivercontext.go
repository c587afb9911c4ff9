package protocol

import (
	"context"
	"sync"
	"time"
)

// deliverContext is the context of Handler.Deliver: it ends with the session's, a time
// after the end of the data, and when Deliver has returned. It is made when it is first
// looked at, since many a handler never does.
type deliverContext struct {
	session context.Context

	mu     sync.Mutex
	inner  context.Context // nil: not looked at yet
	cancel context.CancelCauseFunc
	due    time.Time // zero: the data is not complete, or there is no limit
	late   *time.Timer
	over   bool
}

func (c *deliverContext) get() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithCancelCause(c.session)
		c.arm()
	}
	return c.inner
}

// arm brings the inner context up to date. The caller holds mu.
func (c *deliverContext) arm() {
	switch {
	case c.inner == nil:
	case c.over:
		c.cancel(nil)
		if c.late != nil {
			c.late.Stop()
		}
	case !c.due.IsZero():
		c.late = time.AfterFunc(time.Until(c.due), func() { c.cancel(context.DeadlineExceeded) })
	}
}

// complete begins the time for delivery; d is positive, or there is no limit.
func (c *deliverContext) complete(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d > 0 {
		c.due = time.Now().Add(d)
		c.arm()
	}
}

// end is called when Deliver has returned.
func (c *deliverContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.arm()
}

func (c *deliverContext) Deadline() (time.Time, bool) { return c.session.Deadline() }
func (c *deliverContext) Done() <-chan struct{}       { return c.get().Done() }
func (c *deliverContext) Err() error                  { return c.get().Err() }
func (c *deliverContext) Value(key any) any           { return c.get().Value(key) }
