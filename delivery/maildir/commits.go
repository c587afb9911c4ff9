package maildir

import (
	"sync"
	"sync/atomic"
	"time"
)

// On a file system that keeps the order of its writes (disk.ordered) a commit of the
// journal makes everything durable that came before it, whoever did it. So one delivery
// asks for it and the others of the same moment wait: for as long as a commit is under
// way those who come gather behind a leader, and when it has ended the leader's begins.
//
//	leader     opens a commit . waits for the one before . closes it . names its file . syncs new/
//	follower   finds it open . names its file . joins if it still is . waits for the leader
//
// The leader's name is younger than those of all who have joined, and a sync brings to
// disk at least what it is asked for. That is why the leader names its file last, and
// why a follower who finds the commit closed cannot be sure to be in it.
//
// Nobody depends on another: who is not covered by a commit, for whatever reason, and
// who has waited for the leader long enough, syncs new/ himself and has his own error.

// commitPatience is how long a copy waits for another's commit. It is less than what
// the watch of the phases takes for hanging.
const commitPatience = patience / 2

// commits are the commits that can be shared, by what they are for. The zero value is
// empty.
type commits[K comparable] struct {
	mu     sync.Mutex
	queues map[K]*commitQueue
}

// commitQueue is what is under way for one key. There is none while nobody commits.
type commitQueue struct {
	open *commit // may be joined; nil: who comes next opens one
	last *commit // the one that was closed last; nil: none yet
}

// commit is one sync that is to cover several deliveries.
type commit struct {
	ended   chan struct{} // closed when the leader has done what it can
	covered bool          // to be read then: it went well
}

// enter returns the open commit of a key. If there is none it opens one, which the
// caller has to lead: to wait for the one before, if there is any, then to close, and
// to end it.
func (c *commits[K]) enter(key K) (at *commit, leads bool, before *commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[key]
	if q == nil {
		if c.queues == nil {
			c.queues = make(map[K]*commitQueue)
		}
		q = &commitQueue{}
		c.queues[key] = q
	}
	if q.open != nil {
		return q.open, false, nil
	}
	q.open = &commit{ended: make(chan struct{})}
	return q.open, true, q.last
}

// joined reports whether a commit that was entered is still open, so that it covers
// what was done before.
func (c *commits[K]) joined(key K, at *commit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[key]
	return q != nil && q.open == at
}

// close ends the time in which a commit may be joined. What it covers has been done.
func (c *commits[K]) close(key K, at *commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queues[key]
	q.open, q.last = nil, at
}

// end tells those who have joined how it went.
func (c *commits[K]) end(key K, at *commit, covered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at.covered = covered
	close(at.ended)
	if q := c.queues[key]; q != nil && q.open == nil && q.last == at {
		delete(c.queues, key)
	}
}

// wait waits for the end of a commit, up to a limit, and reports whether it covers
// those who have joined.
func (at *commit) wait(limit time.Duration) bool {
	select {
	case <-at.ended:
		return at.covered
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-at.ended:
		return at.covered
	case <-timer.C:
		return false
	}
}

// party is the copies of one batch on one file system, or a copy that goes by itself.
// The last of them is named when the others are, and takes part in a commit for all.
type party struct {
	last *delivery
	// in is the commit that covers the party, if it covers anybody. Until the last
	// copy has joined one there is none.
	in atomic.Pointer[commit]
}

// gather makes parties of copies whose content is on disk, or will not be.
func gather(copies []*delivery) {
	parties := make(map[device]*party, 1)
	for _, d := range copies {
		if !d.ordered() {
			continue
		}
		p := parties[d.dev]
		if p == nil {
			p = &party{}
			parties[d.dev] = p
		}
		d.party, p.last = p, d
	}
}

// isLast reports whether the copy is the one by which its party takes part in a commit.
func (d *delivery) isLast() bool { return d.party != nil && d.party.last == d }

// nameLast names the last copy of a party, and syncs its new/ where it leads.
func (d *delivery) nameLast() error {
	all := &d.w.commits
	at, leads, before := all.enter(d.dev)
	if !leads {
		err := d.nameFile()
		if err == nil && all.joined(d.dev, at) {
			d.party.in.Store(at)
		}
		return err
	}
	if before != nil {
		before.wait(commitPatience)
	}
	all.close(d.dev, at)
	err := d.nameFile()
	if err == nil {
		err = d.syncNew()
	}
	all.end(d.dev, at, err == nil)
	if err == nil {
		d.party.in.Store(at)
	}
	return err
}

// isCovered reports whether the copy's name was brought to disk by a commit that its
// party has part in.
func (d *delivery) isCovered() bool {
	if d.party == nil {
		return false
	}
	at := d.party.in.Load()
	if at == nil {
		return false
	}
	if !at.wait(commitPatience) {
		d.party.in.CompareAndSwap(at, nil) // the others need not wait as well
		return false
	}
	return true
}

// ordered reports whether the file of the copy is on a file system that keeps the order.
func (d *delivery) ordered() bool {
	f := d.common
	if f == nil {
		return d.disk.ordered
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.ordered
}
