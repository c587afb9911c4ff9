package maildir

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// The copies of one call go through the phases together (see doc.go). A phase
// takes one copy after the other, on few threads, because the expensive part is
// shared: the first sync of a phase commits the journal for all of them, and the
// others find their work done, or need none (commits.go).
//
// A copy that hangs (a home on a dead NFS server) must not hold the others up.
// So each thread of a phase is watched: where one step has taken longer than
// patience, its copy is let go its own way on that thread, and another thread
// takes the rest of the phase.

const (
	batchSize    = 64 // copies that go together; each holds two or three descriptors
	phaseThreads = 4  // that work on one phase of one batch
	maxHung      = 1024

	patience      = 250 * time.Millisecond
	lessPatience  = 25 * time.Millisecond // once a copy of the batch has hung
	maxHungBoxes  = 4                     // copies that may hang in one mailbox for longer than stuckAfter
	stuckAfter    = 10 * time.Second
	abandonedText = "deadline passed while a step hung"
)

// ErrBusy: earlier deliveries to the same mailbox hang, or too many hang in all.
var ErrBusy = errors.New("earlier deliveries hang")

// phases in their order. An error ends the copy.
var phases = [...]func(*delivery) error{
	(*delivery).prepare,
	(*delivery).syncFile,
	(*delivery).giveName,
	(*delivery).giveLastName,
	(*delivery).syncName,
}

const phaseNaming = 2 // giveName, before which the copies are gathered in parties

// call is one call of Deliver.
type call struct {
	w      *Writer
	ctx    context.Context
	copies []*delivery
	done   func(i int, r Result)

	unsettled atomic.Int64  // copies whose outcome has not been told
	all       chan struct{} // closed when there are none
	using     atomic.Int64  // copies that still use the body, and the call itself
	retain    func() (release func())
	release   func() // set before the first copy is abandoned
}

// round is one phase of one batch.
type round struct {
	c     *call
	phase int

	mu      sync.Mutex
	queue   []*delivery
	next    int
	passed  []*delivery // those that go on to the next phase
	threads []*phaseThread
	hung    bool
	idle    chan struct{} // signalled by each thread that finds the queue empty
}

// phaseThread is what the watch knows of one thread.
type phaseThread struct {
	copy  *delivery // at hand; nil between two
	since time.Time
	gone  bool // its copy goes its own way
}

// together takes the copies of a batch through all phases.
func (c *call) together(batch []*delivery) {
	joinClones(batch)
	for p := range phases {
		if len(batch) == 0 {
			return
		}
		if p == phaseNaming {
			gather(batch)
		}
		r := &round{c: c, phase: p, queue: batch, idle: make(chan struct{}, len(batch)+phaseThreads)}
		batch = r.run()
	}
}

// run returns the copies that have passed, in their order of arrival.
func (r *round) run() []*delivery {
	n := min(phaseThreads, len(r.queue))
	r.mu.Lock()
	for range n {
		r.start()
	}
	r.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for working := n; working > 0; {
		select {
		case <-r.idle:
			working--
		case <-timer.C:
			timer.Reset(r.watch())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed
}

// start begins another thread. The caller holds mu.
func (r *round) start() {
	t := &phaseThread{}
	r.threads = append(r.threads, t)
	go r.work(t)
}

// watch lets those copies go that hang, and returns when to look again.
func (r *round) watch() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := patience
	if r.hung {
		limit = lessPatience
	}
	for _, t := range r.threads {
		if t.gone || t.copy == nil || time.Since(t.since) < limit || !r.c.w.hang(t.copy) {
			continue
		}
		t.gone = true
		r.hung = true
		r.start()
	}
	if r.hung {
		return lessPatience
	}
	return patience
}

// work takes copies through the phase until there are none left.
func (r *round) work(t *phaseThread) {
	for {
		r.mu.Lock()
		if r.next == len(r.queue) {
			t.copy = nil
			r.mu.Unlock()
			r.idle <- struct{}{}
			return
		}
		d := r.queue[r.next]
		r.next++
		t.copy, t.since = d, time.Now()
		r.mu.Unlock()

		err := phases[r.phase](d)

		r.mu.Lock()
		alone, lost := t.gone, d.lost
		if t.copy = nil; !alone && err == nil {
			r.passed = append(r.passed, d)
		}
		if d.lost = false; lost && !alone {
			r.start() // another thread in place of this one
		}
		r.mu.Unlock()
		switch {
		case alone:
			r.c.goAlone(d, r.phase+1, err)
			return
		case err != nil:
			r.c.settle(d, err)
		case r.phase == len(phases)-1:
			r.c.settle(d, nil) // its reply need not wait for the others
		}
		if lost {
			return
		}
	}
}

// goAlone takes a copy that was let go through the phases that it still has.
func (c *call) goAlone(d *delivery, from int, err error) {
	if !d.isLast() {
		d.party = nil // it may be named after the others' commit
	}
	for p := from; p < len(phases) && err == nil; p++ {
		err = phases[p](d)
	}
	c.w.hangsNoMore(d)
	c.settle(d, err)
}

// settle is the end of a copy: it takes back one that failed or was abandoned,
// and tells the outcome unless abandon has.
func (c *call) settle(d *delivery, err error) {
	d.end(err)
	mine := d.claim.Load() == claimNaming || d.claim.CompareAndSwap(claimFree, claimSettled)
	tidy := c.w.tidying(d)
	c.unused()
	if mine {
		c.tell(d.index, d.res)
	}
	if tidy != nil {
		go tidy()
	}
}

func (c *call) tell(i int, r Result) {
	r.Stale = c.w.stale.count.Swap(0)
	c.done(i, r)
	if c.unsettled.Add(-1) == 0 {
		close(c.all)
	}
}

// single takes a copy that goes by itself through its steps, under one bracket of
// credentials and without the machinery of the phases. One that hangs gives its
// slot back.
func (c *call) single(d *delivery) {
	if !c.admit(d) || !c.slot(c.copies) {
		return
	}
	go func() {
		err := d.asOwnerHere(d.steps)
		if err == nil {
			err = d.syncName()
		}
		if !d.hung.CompareAndSwap(false, true) {
			c.w.hangsNoMore(d)
		} else {
			c.w.freeSlot()
		}
		c.settle(d, err)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.all:
	case <-c.ctx.Done():
	case <-timer.C:
	}
	c.letGo(d)
}

// letGo counts a single copy that has not come back as one that hangs.
func (c *call) letGo(d *delivery) {
	select {
	case <-c.all:
		return
	default:
	}
	if !c.w.hang(d) {
		return
	}
	if d.hung.CompareAndSwap(false, true) {
		c.w.freeSlot()
	} else {
		c.w.hangsNoMore(d)
	}
}

// wait returns when every copy is settled. When the context ends first, copies
// that hang and certainly have no name yet are settled as failures and left
// behind; one that hangs while it is being named is waited for, since nobody can
// say which way it will go.
func (c *call) wait() {
	select {
	case <-c.all:
		return
	case <-c.ctx.Done():
	}
	if c.retain != nil {
		c.release = c.retain()
		for _, d := range c.copies {
			c.abandon(d)
		}
	}
	<-c.all
}

func (c *call) abandon(d *delivery) {
	if !d.claim.CompareAndSwap(claimFree, claimAbandoned) {
		return
	}
	// Nothing of d itself may be read here: its thread may be at it.
	err := fmt.Errorf("%w: %s", context.Cause(c.ctx), abandonedText)
	c.tell(d.index, Result{Size: d.size, Err: &Error{Op: OpWait, Path: d.t.Root, Err: err}})
}

// unused counts one user of the body less.
func (c *call) unused() {
	if c.using.Add(-1) == 0 && c.release != nil {
		c.release()
	}
}

// Who may say what became of a copy. Before it is named that can be taken from
// it; from the moment of naming on only the copy itself knows.
const (
	claimFree      = iota
	claimNaming    // the copy is being named, or is named
	claimAbandoned // told as failed; the copy must not be named
	claimSettled   // the copy has told it
)

// hungCopies counts the copies that were let go and have not come back.
type hungCopies struct {
	mu    sync.Mutex
	total int
	boxes map[string]hungBox
}

type hungBox struct {
	n    int
	many time.Time // since when there have been maxHungBoxes of them
}

// hang counts a copy that hangs; false if there are too many of them already,
// and it has to be waited for.
func (w *Writer) hang(d *delivery) bool {
	h := &w.hung
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.total >= maxHung {
		return false
	}
	h.total++
	if h.boxes == nil {
		h.boxes = make(map[string]hungBox)
	}
	box := h.boxes[d.box()]
	if box.n++; box.n == maxHungBoxes {
		box.many = w.now()
	}
	h.boxes[d.box()] = box
	return true
}

func (w *Writer) hangsNoMore(d *delivery) {
	h := &w.hung
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total--
	box := h.boxes[d.box()]
	if box.n--; box.n == 0 {
		delete(h.boxes, d.box())
		return
	}
	h.boxes[d.box()] = box
}

// busy refuses a copy for a mailbox in which enough of them hang. A disk that is only
// slow does not make it busy.
func (w *Writer) busy(d *delivery) error {
	h := &w.hung
	h.mu.Lock()
	defer h.mu.Unlock()
	box := h.boxes[d.box()]
	if box.n >= maxHungBoxes && w.now().Sub(box.many) > stuckAfter || h.total >= maxHung {
		return fmt.Errorf("%w: %d in this mailbox, %d in all", ErrBusy, box.n, h.total)
	}
	return nil
}

// box names a mailbox for the count of hung copies.
func (d *delivery) box() string { return d.t.Root + "\x00" + d.t.Path }
