package main

import (
	"sync/atomic"

	"github.com/lmtpd/lmtpd/delivery"
)

// outcomeCounts counts recipients by what became of them. It is safe for
// concurrent use.
type outcomeCounts struct{ delivered, deferred, refused atomic.Uint64 }

// sum is the number of recipients so far.
func (c *outcomeCounts) sum() uint64 {
	return c.delivered.Load() + c.deferred.Load() + c.refused.Load()
}

func (c *outcomeCounts) add(o delivery.Outcome) {
	switch {
	case o.Reply.OK():
		c.delivered.Add(1)
	case o.Reply.Temporary():
		c.deferred.Add(1)
	default:
		c.refused.Add(1)
	}
}
