package main

import (
	"context"
	"sync/atomic"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
)

// agents hands each transaction to the agent that was current when it began, so
// that a reload changes what happens to the next message of every open session
// and to nothing that is on its way.
type agents struct {
	current    atomic.Pointer[delivery.Agent]
	redelivery *delivery.Redelivery // one for all agents; nil: there is none
}

// policy are the hooks that go with the handler.
func (a *agents) policy() protocol.Policy {
	p := protocol.Policy{
		Mail: func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			tx.Value = a.current.Load()
			return protocol.Reply{}
		},
		Rcpt: func(ctx context.Context, tx *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
			return tx.Value.(*delivery.Agent).Rcpt(ctx, tx, rcpt)
		},
	}
	if a.redelivery != nil {
		p.Replied = func(ctx context.Context, tx *protocol.Transaction, seen bool) {
			a.current.Load().Replied(ctx, tx, seen)
		}
	}
	return p
}

// Deliver implements protocol.Handler.
func (a *agents) Deliver(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
	return tx.Value.(*delivery.Agent).Deliver(ctx, tx, body)
}
