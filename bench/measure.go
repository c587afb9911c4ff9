package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// bench is one run of the benchmark.
type bench struct {
	disk   *disk
	root   bool // may become other users
	pace   func(sc scenario) pace
	rounds int
	say    func(format string, args ...any)

	lmtpd, dovecot, postfix string // programs; "" is not here
	links                   bool   // lmtpd knows single_instance
	mailbox                 string // a line of lmtpd's configuration
}

// sample is one measurement.
type sample struct {
	rate      float64       // deliveries per second
	cpu       time.Duration // of the server, for each delivery; 0: not known
	client    time.Duration // the same of the load generator
	p50, p99  time.Duration // of a transaction
	pss       int64         // octets of memory of the server, at most, under load
	grown     int64         // of these, more than before the load
	processes int
	refused   int     // connections and recipients
	written   float64 // octets to the disk for each octet delivered; 0: not known
}

// meter tells what a contender uses.
type meter interface {
	cpu() time.Duration                    // so far
	memory() (octets int64, processes int) // now
}

// itself is the benchmark where it is its own contender; what it takes to make
// messages and count them is little beside the system calls.
type itself struct{}

func (itself) cpu() time.Duration   { return ownCPU() }
func (itself) memory() (int64, int) { return 0, 0 }

// inFresh gives f a site of its own and takes it away afterwards.
func (b *bench) inFresh(perUser bool, f func(s *site) error) error {
	dir := filepath.Join(b.disk.dir, "site")
	s, err := newSite(dir, perUser, b.root)
	if err != nil {
		return err
	}
	b.disk.settle()
	err = f(s)
	if err != nil {
		return fmt.Errorf("%w (its files are in %s)", err, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	b.disk.settle()
	return nil
}

// measureServer takes a scenario to a server whose replies mean delivery.
func (b *bench) measureServer(c contender, sc scenario) (sm sample, err error) {
	err = b.inFresh(c.perUser, func(s *site) error {
		r, err := c.start(b, s)
		if err != nil {
			return err
		}
		var acks []ack
		sm, acks, err = b.measureLoad(sc, r.open, r)
		if err := errors.Join(err, r.stop()); err != nil {
			return fmt.Errorf("%w\n%s", err, r.tail())
		}
		return s.verify(acks)
	})
	return sm, err
}

// measureScheme takes a scenario to bare system calls.
func (b *bench) measureScheme(c scheme, sc scenario) (sm sample, err error) {
	err = b.inFresh(false, func(s *site) error {
		open := func(m *message) (sender, error) {
			return &schemeWriter{scheme: c, site: s, message: m.file()}, nil
		}
		var acks []ack
		sm, acks, err = b.measureLoad(sc, open, itself{})
		if err != nil {
			return err
		}
		return s.verify(acks)
	})
	return sm, err
}

// Numbers of messages: those that fill the mailboxes before differ from those
// that are measured.
const firstBefore, firstMeasured = 1 << 60, 0

// before has one message delivered to each user: what a server does only once
// for a mailbox is not measured.
func (b *bench) before(open opener) ([]ack, error) {
	l := &load{
		scenario: scenario{sessions: 1, rcpts: 25, size: 4 << 10}, open: open, first: firstBefore,
		pace: pace{each: users / 25}, measuring: func(bool) {},
	}
	o, err := l.run()
	if err == nil && (o.refused > 0 || len(o.acks) != users) {
		err = fmt.Errorf("%d of %d first deliveries refused", o.refused, users)
	}
	return o.acks, err
}

func (b *bench) measureLoad(sc scenario, open opener, m meter) (sample, []ack, error) {
	acks, err := b.before(open)
	if err != nil {
		return sample{}, acks, err
	}
	var sm sample
	var cpu time.Duration
	var written int64
	idle, _ := m.memory()
	look := func() {
		pss, n := m.memory()
		sm.pss, sm.processes = max(sm.pss, pss), max(sm.processes, n)
	}
	l := &load{scenario: sc, open: open, first: firstMeasured, pace: b.pace(sc), measuring: func(begins bool) {
		if begins {
			cpu, written = m.cpu(), b.disk.written()
			return
		}
		cpu, written = m.cpu()-cpu, b.disk.written()-written
		look()
	}}
	if sc.size > 1<<20 { // only these take memory for a moment
		l.meanwhile = look
	}
	o, err := l.run()
	sm.fill(o, sc, cpu, written)
	sm.grown = max(0, sm.pss-idle)
	return sm, append(acks, o.acks...), err
}

func (sm *sample) fill(o *outcome, sc scenario, cpu time.Duration, written int64) {
	sm.refused = o.refused
	sm.p50, sm.p99 = percentile(o.took, 0.5), percentile(o.took, 0.99)
	if o.deliveries == 0 {
		return
	}
	sm.rate = o.deliveries / o.elapsed.Seconds()
	sm.cpu = time.Duration(float64(cpu) / o.deliveries)
	sm.written = float64(written) / (o.deliveries * float64(sc.size))
}

// measureEndToEnd takes a scenario to an MTA with a queue: the time is that from
// the first octet to the last message in its mailbox.
func (b *bench) measureEndToEnd(c contender, sc scenario) (sm sample, err error) {
	err = b.inFresh(c.perUser, func(s *site) error {
		r, err := c.start(b, s)
		if err != nil {
			return err
		}
		var acks []ack
		sm, acks, err = b.endToEnd(r, s, sc)
		if err := errors.Join(err, r.stop()); err != nil {
			return fmt.Errorf("%w\n%s", err, r.tail())
		}
		return s.verify(acks)
	})
	return sm, err
}

func (b *bench) endToEnd(r *running, s *site, sc scenario) (sample, []ack, error) {
	seen, err := watchArrivals(s)
	if err != nil {
		return sample{}, nil, err
	}
	defer seen.close()
	acks, err := b.before(r.open)
	if err != nil {
		return sample{}, acks, err
	}
	if err := seen.await(len(acks)); err != nil {
		return sample{}, acks, err
	}
	var sm sample
	cpu, written := r.cpu(), b.disk.written()
	l := &load{scenario: sc, open: r.open, first: firstMeasured, pace: pace{each: endToEndMessages(sc)}, measuring: func(bool) {}}
	begin := time.Now()
	o, err := l.run()
	acks = append(acks, o.acks...)
	if err != nil {
		return sm, acks, err
	}
	if err := seen.await(len(o.acks)); err != nil {
		return sm, acks, err
	}
	o.elapsed, o.deliveries = time.Since(begin), float64(len(o.acks))
	sm.fill(o, sc, r.cpu()-cpu, b.disk.written()-written)
	sm.pss, sm.processes = r.memory()
	return sm, acks, nil
}

// endToEndMessages of one session: some seconds' worth.
func endToEndMessages(sc scenario) int {
	switch {
	case sc.size > 1<<20:
		return 10
	case sc.rcpts > 1:
		return 8
	}
	return 120
}

// measureCold opens connections all at once to a server that has just started;
// p50 and p99 are the times to the reply to LHLO.
func (b *bench) measureCold(c contender, connections int) (sm sample, err error) {
	err = b.inFresh(c.perUser, func(s *site) error {
		r, err := c.start(b, s)
		if err != nil {
			return err
		}
		took, err := coldBurst(r.addr, connections)
		sm.p50, sm.p99 = percentile(took, 0.5), percentile(took, 0.99)
		return errors.Join(err, r.stop())
	})
	return sm, err
}
