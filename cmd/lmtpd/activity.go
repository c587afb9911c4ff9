package main

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
)

// activity remembers what has happened lately, for `lmtpd status`: a fixed amount,
// however busy the daemon is. It is safe for concurrent use.
type activity struct {
	clock func() time.Time

	mu       sync.Mutex
	start    time.Time
	totals   tally
	buckets  [rateBuckets]rateBucket
	slow     [2][]slowMailbox // this period and the one before it
	period   int64            // number of this period
	deferred ring
	refused  ring
}

const (
	bucketWidth  = 5 * time.Second
	rateBuckets  = 15*12 + 1        // a quarter of an hour, and the bucket being filled
	slowPeriod   = 15 * time.Minute // how long a slow mailbox stays at least
	slowListed   = 10
	failuresKept = 25
	maxShown     = 200 // octets of a text that is kept
)

// rateWindows are the spans that rates are given for.
var rateWindows = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

// tally counts recipients, and octets of what was delivered.
type tally struct {
	Delivered uint64 `json:"delivered"`
	Deferred  uint64 `json:"deferred"`
	Refused   uint64 `json:"refused"`
	Bytes     uint64 `json:"bytes"`
}

func (t *tally) add(o *delivery.Outcome) {
	switch {
	case o.Reply.OK():
		t.Delivered++
		if !o.Duplicate && !o.Again {
			t.Bytes += uint64(max(o.Size, 0))
		}
	case o.Reply.Temporary():
		t.Deferred++
	default:
		t.Refused++
	}
}

func (t *tally) sum(u tally) {
	t.Delivered += u.Delivered
	t.Deferred += u.Deferred
	t.Refused += u.Refused
	t.Bytes += u.Bytes
}

type rateBucket struct {
	number int64 // unix time in bucketWidths
	tally
}

// slowMailbox is the slowest delivery to one mailbox.
type slowMailbox struct {
	Mailbox string        `json:"mailbox"`
	Time    time.Time     `json:"time"`
	Took    time.Duration `json:"nanoseconds"` // writing and syncing
	ID      string        `json:"id"`
}

// failure is a recipient that was not served.
type failure struct {
	Time     time.Time `json:"time"`
	Session  uint64    `json:"session,omitempty"`
	ID       string    `json:"id,omitempty"`
	QueueID  string    `json:"queue_id,omitempty"`
	From     string    `json:"from"`
	To       string    `json:"to"`
	Mailbox  string    `json:"mailbox,omitempty"`
	Code     int       `json:"code"`
	Enhanced string    `json:"enhanced"`
	Error    string    `json:"error"`
}

// ring keeps the last failures.
type ring struct {
	kept [failuresKept]failure
	n    uint64 // ever added
}

func (r *ring) add(f failure) {
	r.kept[r.n%failuresKept] = f
	r.n++
}

// latest lists them, the last one first.
func (r *ring) latest() []failure {
	list := make([]failure, 0, failuresKept)
	for i := range min(r.n, failuresKept) {
		list = append(list, r.kept[(r.n-1-i)%failuresKept])
	}
	return list
}

func newActivity(clock func() time.Time) *activity {
	return &activity{clock: clock, start: clock()}
}

func (a *activity) add(o *delivery.Outcome) {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.totals.add(o)
	number := now.UnixNano() / int64(bucketWidth)
	b := &a.buckets[number%rateBuckets]
	if b.number != number {
		*b = rateBucket{number: number}
	}
	b.add(o)
	if o.Mailbox != "" && !o.Duplicate {
		a.addSlow(now, o)
	}
	if o.Reply.OK() {
		return
	}
	// The strings may be pieces of a whole message.
	f := failure{
		Time: now, Session: o.Session, ID: clip(o.ID), QueueID: clip(o.QueueID), From: clip(o.From), To: clip(o.To),
		Mailbox: clip(o.Mailbox), Code: o.Reply.Code, Enhanced: o.Reply.Enhanced.String(), Error: clip(o.Reply.Text),
	}
	if o.Err != nil {
		f.Error = clip(o.Err.Error())
	}
	if o.Reply.Temporary() {
		a.deferred.add(f)
	} else {
		a.refused.add(f)
	}
}

func (a *activity) addSlow(now time.Time, o *delivery.Outcome) {
	if period := now.UnixNano() / int64(slowPeriod); period != a.period {
		a.slow[1] = nil
		if period == a.period+1 {
			a.slow[1] = a.slow[0]
		}
		a.slow[0], a.period = nil, period
	}
	took := o.Write + o.Sync
	list := a.slow[0]
	if len(list) == slowListed && took <= list[slowListed-1].Took {
		return
	}
	a.slow[0] = insertSlow(list, slowMailbox{clip(o.Mailbox), now, took, clip(o.ID)})
}

// insertSlow keeps list sorted, each mailbox in it once, and bounded.
func insertSlow(list []slowMailbox, s slowMailbox) []slowMailbox {
	if i := slices.IndexFunc(list, func(e slowMailbox) bool { return e.Mailbox == s.Mailbox }); i >= 0 {
		if s.Took <= list[i].Took {
			return list
		}
		list = slices.Delete(list, i, i+1)
	}
	i := slices.IndexFunc(list, func(e slowMailbox) bool { return e.Took < s.Took })
	if i < 0 {
		i = len(list)
	}
	list = slices.Insert(list, i, s)
	return list[:min(len(list), slowListed)]
}

// rate is what happened in the last Seconds.
type rate struct {
	Seconds int `json:"seconds"` // less than the window where the daemon is younger
	tally
}

// recent is a copy of what is remembered, for one report.
func (a *activity) recent(s *statusReport) {
	now := a.clock()
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Totals = a.totals
	number := now.UnixNano() / int64(bucketWidth)
	for _, window := range rateWindows {
		r := rate{Seconds: int(min(window, max(now.Sub(a.start), time.Second)).Seconds())}
		for i := range a.buckets {
			if age := number - a.buckets[i].number; age >= 0 && age < int64(window/bucketWidth) {
				r.sum(a.buckets[i].tally)
			}
		}
		s.Rates = append(s.Rates, r)
	}
	slow := slices.Clone(a.slow[0])
	if now.UnixNano()/int64(slowPeriod) <= a.period+1 {
		for _, e := range a.slow[1] {
			slow = insertSlow(slow, e)
		}
	} else {
		slow = nil
	}
	s.Slowest = slow
	s.Deferred, s.Refused = a.deferred.latest(), a.refused.latest()
}

// clip bounds a text that is kept, and copies it.
func clip(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return strings.Clone(s)
}
