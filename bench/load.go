package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// scenario is a shape of traffic.
type scenario struct {
	name     string
	what     string
	sessions int
	rcpts    int // of each message
	size     int // octets of a message
}

const users = 100

// The scenarios of the figures; one connection per session.
var (
	scenarioA = scenario{"a", "1 session, 1 recipient, 4 KiB", 1, 1, 4 << 10}
	scenarioB = scenario{"b", "16 sessions, 1 recipient, 4 KiB", 16, 1, 4 << 10}
	scenarioC = scenario{"c", "16 sessions, 50 recipients, 4 KiB", 16, 50, 4 << 10}
	scenarioD = scenario{"d", "4 sessions, 1 recipient, 10 MiB", 4, 1, 10 << 20}
	scenarioE = scenario{"e", "100 sessions, 1 recipient, 4 KiB", 100, 1, 4 << 10}
	scenarios = []scenario{scenarioA, scenarioB, scenarioC, scenarioD, scenarioE}
)

// pace says how long a load lasts: for a time, or a number of transactions of
// each session.
type pace struct {
	warm, measure time.Duration
	each          int // if not 0: this many, all of them measured
}

// ack is an acknowledged delivery.
type ack struct {
	user int
	id   uint64
	size int64 // octets, without a trace header
}

// sender delivers messages in one session.
type sender interface {
	// send delivers one message and calls taken with the index of each recipient
	// whose copy is acknowledged. An error ends the session.
	send(id uint64, to []int, taken func(i int)) (refused int, err error)
	quit() error
}

// opener begins a session that will send this message.
type opener func(m *message) (sender, error)

// load is the traffic of one scenario against one contender.
type load struct {
	scenario
	open  opener
	pace  pace
	first uint64 // number of the first message: none is used twice in a tree

	// measuring is called when the measured part begins and again when it has
	// ended, while the load goes on.
	measuring func(begins bool)
	// meanwhile, if set, is called a few times in between.
	meanwhile func()

	stop   atomic.Bool
	window [2]time.Time
	failed chan error
}

// record is what one session remembers.
type record struct {
	acks    []ack
	done    []transaction
	refused int
}

type transaction struct {
	end   time.Time
	took  time.Duration
	taken int
}

// within is the part of the transaction that lies in the window. To count whole
// ones would be a lottery where they take as long as the window.
func (t transaction) within(window [2]time.Time) float64 {
	from, to := t.end.Add(-t.took), t.end
	if window[0].After(from) {
		from = window[0]
	}
	if window[1].Before(to) {
		to = window[1]
	}
	if t.took <= 0 || !to.After(from) {
		return 0
	}
	return float64(to.Sub(from)) / float64(t.took)
}

// outcome is what all sessions remember together.
type outcome struct {
	acks       []ack
	deliveries float64 // within the measured part
	elapsed    time.Duration
	took       []time.Duration // transactions of the measured part, sorted
	refused    int             // connections and recipients
}

// run takes the load from its first connection to its last.
func (l *load) run() (*outcome, error) {
	l.failed = make(chan error, l.sessions)
	records := make([]record, l.sessions)
	var all sync.WaitGroup
	for s := range l.sessions {
		all.Go(func() {
			if err := l.session(s, &records[s]); err != nil {
				l.failed <- fmt.Errorf("session %d: %w", s, err)
			}
		})
	}
	l.measure(&all)
	close(l.failed)
	return l.sum(records), <-l.failed
}

// measure waits for the load's end, or brings it about.
func (l *load) measure(all *sync.WaitGroup) {
	if l.pace.each > 0 {
		l.window[0] = time.Now()
		l.measuring(true)
		all.Wait()
		l.measuring(false)
		l.window[1] = time.Now()
		return
	}
	time.Sleep(l.pace.warm)
	l.measuring(true)
	l.window[0] = time.Now()
	const parts = 8
	for i := range time.Duration(parts) {
		time.Sleep(time.Until(l.window[0].Add(l.pace.measure * (i + 1) / parts)))
		if l.meanwhile != nil {
			l.meanwhile()
		}
	}
	l.window[1] = time.Now()
	l.measuring(false)
	l.stop.Store(true)
	all.Wait()
}

// session sends one message after another.
func (l *load) session(s int, rec *record) error {
	m := newMessage(l.size)
	size := m.file().stored()
	c, err := l.open(m)
	if err != nil {
		rec.refused++
		return fmt.Errorf("connection: %w", err)
	}
	to := make([]int, l.rcpts)
	for t := 0; !l.stop.Load() && (l.pace.each == 0 || t < l.pace.each); t++ {
		for i := range to {
			to[i] = (s*7 + t*l.rcpts + i) % users
		}
		id := l.first + uint64(s)<<32 + uint64(t)
		taken := 0
		begin := time.Now()
		refused, err := c.send(id, to, func(i int) {
			rec.acks = append(rec.acks, ack{to[i], id, size})
			taken++
		})
		end := time.Now()
		rec.refused += refused
		if err != nil {
			rec.refused++
			return err
		}
		rec.done = append(rec.done, transaction{end, end.Sub(begin), taken})
	}
	return c.quit()
}

func (l *load) sum(records []record) *outcome {
	o := &outcome{elapsed: l.window[1].Sub(l.window[0])}
	for _, r := range records {
		o.acks = append(o.acks, r.acks...)
		o.refused += r.refused
		for _, t := range r.done {
			o.deliveries += float64(t.taken) * t.within(l.window)
			if !t.end.Before(l.window[0]) && !t.end.After(l.window[1]) {
				o.took = append(o.took, t.took)
			}
		}
	}
	slices.Sort(o.took)
	return o
}

// percentile of a sorted list.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// networkSender is a session with a server.
type networkSender struct {
	*client
	message *message
	rcpts   []string
}

func (n *networkSender) send(id uint64, to []int, taken func(i int)) (refused int, err error) {
	n.rcpts = n.rcpts[:0]
	for _, user := range to {
		n.rcpts = append(n.rcpts, userAddress(user))
	}
	refused, err = n.client.send(n.message, id, n.rcpts, taken)
	if err != nil {
		n.conn.Close()
	}
	return refused, err
}

func userName(i int) string    { return fmt.Sprintf("user%02d", i) }
func userAddress(i int) string { return userName(i) + "@example.org" }

// coldBurst opens n connections at once to a server that has had none yet, and
// gives the time from each dial to the reply to LHLO.
func coldBurst(addr string, n int) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	errs := make([]error, n)
	clients := make([]*client, n)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-begin
			at := time.Now()
			clients[i], errs[i] = dial(addr, true)
			took[i] = time.Since(at)
		})
	}
	close(begin)
	all.Wait()
	for i, c := range clients { // all are held until the last is in
		if c != nil {
			errs[i] = errors.Join(errs[i], c.quit())
		}
	}
	slices.Sort(took)
	return took, errors.Join(errs...)
}
