package protocol

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestDeliverContext: it ends as one would that is there from the start, whenever it is
// looked at first.
func TestDeliverContext(t *testing.T) {
	for _, early := range []bool{true, false} {
		look := func(c *deliverContext) {
			if early {
				c.Done()
			}
		}
		ended := &deliverContext{session: t.Context()}
		look(ended)
		ended.complete(time.Hour)
		if early && ended.Err() != nil {
			t.Error("it ends with the data")
		}
		ended.end()
		<-ended.Done()
		if err := ended.Err(); err != context.Canceled {
			t.Errorf("after Deliver: %v", err)
		}

		late := &deliverContext{session: t.Context()}
		look(late)
		late.complete(time.Nanosecond)
		derived, cancel := context.WithCancel(late)
		<-derived.Done()
		if cause := context.Cause(derived); !errors.Is(cause, context.DeadlineExceeded) {
			t.Errorf("when its time is over: %v", cause)
		}
		cancel()
		late.end()

		type key struct{}
		session, cut := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		forced := &deliverContext{session: session}
		look(forced)
		forced.complete(-1)
		if v := forced.Value(key{}); v != "value" {
			t.Errorf("value %v", v)
		}
		if _, ok := forced.Deadline(); ok {
			t.Error("a deadline, which the session has not")
		}
		cut()
		<-forced.Done()
		forced.end()
	}
}

// TestDeliverContextUnused: who does not look at it does not pay for it.
func TestDeliverContextUnused(t *testing.T) {
	c := new(deliverContext)
	if n := testing.AllocsPerRun(10, func() {
		*c = deliverContext{session: t.Context()}
		c.complete(time.Hour)
		c.end()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
