package writer

import (
	"errors"
	"sync/atomic"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Counts are what Clients have seen of the way to the writer process. They only grow,
// but for Open, and are safe for concurrent use.
type Counts struct {
	Open       atomic.Int64  // connections that there are now
	Made       atomic.Uint64 // connections
	Reconnects atomic.Uint64 // connections that idled and were found ended: the writer process was restarted

	// Requests by what became of them.
	Answered    atomic.Uint64 // whatever the answer was
	Unavailable atomic.Uint64 // ErrUnavailable
	Lost        atomic.Uint64 // ErrLost
	Refused     atomic.Uint64 // ErrRefused

	// Forbidden are copies that the writer process was asked for and found not to be
	// as its own user databases have them, or that its rules about owners and paths exclude.
	Forbidden atomic.Uint64
}

// over counts a request that has ended.
func (n *Counts) over(err error) {
	switch {
	case err == nil:
		n.Answered.Add(1)
	case errors.Is(err, ErrRefused):
		n.Refused.Add(1)
	case errors.Is(err, ErrUnavailable):
		n.Unavailable.Add(1)
	default:
		n.Lost.Add(1)
	}
}

// answer counts what the writer process has said of one copy.
func (n *Counts) answer(err error) {
	if errors.Is(err, maildir.ErrOwner) || errors.Is(err, maildir.ErrPath) {
		n.Forbidden.Add(1)
	}
}
