package delivery

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"
)

// handovers are the copies of a message that go to Transports.
type handovers struct {
	a       *Agent
	m       *message
	parcels []*outgoing
	over    *sync.WaitGroup // those that are under way; nothing of the message is in use after them
}

// outgoing is one Parcel with what it is made of.
type outgoing struct {
	route  *route
	at     int64 // unix seconds in the header: a message that comes again has those of the first time
	copies []*copyOf
	parcel Parcel
}

// add takes a copy, unless there is a reason that it does not go, or it has been handed
// over before.
func (h *handovers) add(c *copyOf, now time.Time) (again bool, err error) {
	r, at := h.m.rcpts[c.rcpts[0]], now.Unix()
	_, final := r.via.to.(PerRecipient)
	if final {
		err = h.a.loops(h.m, r)
	} else {
		err = h.a.relayLoops(h.m)
	}
	if err != nil {
		return false, err
	}
	if h.m.claim != nil {
		// What may have been handed over, and what became of it is not known, is handed
		// over again: nobody but the other side could tell.
		v, err := h.m.claim.ask(c, newRedeliveryKey(h.m.spooled.sum, h.m.from, r.addr))
		if err != nil || v.again {
			return v.again, err
		}
		c.attempt, c.seek, at = v.attempt, v.seek, v.attempt.at
	}
	o := h.open(r, at, final)
	o.copies = append(o.copies, c)
	o.parcel.Rcpts = append(o.parcel.Rcpts, ParcelRcpt{
		Address: r.via.address, Parts: r.addr, User: r.user.Name, ORcpt: r.orig, Notify: r.notify,
	})
	if final {
		o.header(h.m, h.a.Trace.header(h.m, r, now))
	}
	return false, nil
}

// open gives the parcel that a copy goes into.
func (h *handovers) open(r *recipient, at int64, final bool) *outgoing {
	via := r.via
	for _, o := range h.parcels {
		if !final && o.at == at && o.route.name == via.name && o.route.host == via.host {
			return o
		}
	}
	o := &outgoing{route: via, at: at}
	o.parcel = Parcel{ID: h.m.id, QueueID: r.queueName(h.m), From: h.m.from, Mail: h.m.params, Host: via.host}
	if h.m.claim != nil {
		o.parcel.Sum = binary.BigEndian.Uint64(h.m.spooled.sum[:])
	}
	if !final {
		o.header(h.m, h.a.Trace.relayed(h.m, r, time.Unix(at, 0)))
	}
	h.parcels = append(h.parcels, o)
	return o
}

// header completes the parcel.
func (o *outgoing) header(m *message, header []byte) {
	o.parcel.Size = int64(len(header)) + m.spooled.Size
	o.parcel.WireSize = o.parcel.Size + m.spooled.Lines + int64(bytes.Count(header, lf)-bytes.Count(header, crlf))
	if m.binary {
		o.parcel.WireSize = o.parcel.Size
	}
	o.parcel.Open = func() io.Reader {
		var body io.Reader = bytes.NewReader(m.spooled.Data)
		if m.spooled.File != nil {
			body = io.NewSectionReader(m.spooled.File, 0, m.spooled.Size)
		}
		return io.MultiReader(bytes.NewReader(header), body)
	}
}

// start hands all parcels over, side by side. finish is called once for each copy,
// from several goroutines.
func (h *handovers) start(ctx context.Context, finish func(c *copyOf, fill func(*Outcome))) {
	for _, o := range h.parcels {
		h.over.Go(func() { h.hand(ctx, o, finish) })
	}
}

func (h *handovers) hand(ctx context.Context, o *outgoing, finish func(*copyOf, func(*Outcome))) {
	var mu sync.Mutex
	settled := make([]bool, len(o.copies))
	start := h.a.Trace.now()
	done := func(i int, res Handover) {
		mu.Lock()
		twice := settled[i]
		settled[i] = true
		mu.Unlock()
		if twice {
			return
		}
		c := o.copies[i]
		if h.m.claim != nil {
			h.m.claim.handed(c.attempt, c.seek, res)
		}
		finish(c, func(out *Outcome) { out.handed(o.route.name, res, o.parcel.Size, h.a.Trace.now().Sub(start)) })
	}
	defer func() {
		err := fmt.Errorf("transport %q did not say what became of the message", o.route.name)
		if p := recover(); p != nil {
			err = fmt.Errorf("transport %q: panic: %v\n%s", o.route.name, p, debug.Stack())
		}
		for i := range o.copies {
			done(i, Handover{Err: err})
		}
	}()
	o.route.to.Deliver(ctx, &o.parcel, done)
}

// handed notes what became of a copy that a Transport got. One of which nobody knows
// whether the other side has it is handed over again, but it stays in mind with its time:
// the header is the same then, so that a next server with a memory of its own finds it
// there.
func (c *claim) handed(a *attempt, seek bool, res Handover) {
	switch {
	case res.Err == nil && res.Reply.OK():
		c.delivered(a)
	case !seek && !errors.Is(res.Err, ErrBroken):
		c.failed(a)
	}
}
