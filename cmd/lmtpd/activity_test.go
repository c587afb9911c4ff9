package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestRates(t *testing.T) {
	clock := newTestClock()
	a := newActivity(clock.time)
	a.add(&goodOutcome)
	clock.now = clock.now.Add(30 * time.Second)
	a.add(&refusedOutcome)
	var r statusReport
	a.recent(&r)
	if got := fmt.Sprint(r.Rates); got != "[{30 {1 0 1 1048576}} {30 {1 0 1 1048576}} {30 {1 0 1 1048576}}]" {
		t.Error(got)
	}
	clock.now = clock.now.Add(40 * time.Second)
	a.add(&deferredOutcome)
	clock.now = clock.now.Add(14 * time.Minute)
	r = statusReport{}
	a.recent(&r)
	if got := fmt.Sprint(r.Rates); got != "[{60 {0 0 0 0}} {300 {0 0 0 0}} {900 {0 1 1 0}}]" {
		t.Error(got)
	}
	clock.now = clock.now.Add(24 * time.Hour)
	r = statusReport{}
	a.recent(&r)
	if r.Rates[2].tally != (tally{}) || r.Totals != (tally{1, 1, 1, 1 << 20}) {
		t.Error(r.Rates, r.Totals)
	}
}

func TestSlowest(t *testing.T) {
	clock := newTestClock()
	a := newActivity(clock.time)
	slow := func(mailbox string, took time.Duration) {
		o := goodOutcome
		o.Mailbox, o.Write, o.Sync = mailbox, took, 0
		a.add(&o)
	}
	list := func() string {
		var r statusReport
		a.recent(&r)
		var b strings.Builder
		for _, s := range r.Slowest {
			fmt.Fprintf(&b, "%s %s, ", s.Mailbox, s.Took)
		}
		return b.String()
	}
	for i := range 100 {
		slow(fmt.Sprintf("u%d", i%20), time.Duration(i)*time.Millisecond)
	}
	want := "u19 99ms, u18 98ms, u17 97ms, u16 96ms, u15 95ms, u14 94ms, u13 93ms, u12 92ms, u11 91ms, u10 90ms, "
	if got := list(); got != want {
		t.Error(got)
	}
	clock.now = clock.now.Add(slowPeriod)
	slow("u5", time.Second)
	slow("u19", time.Millisecond)
	if got := list(); got != "u5 1s, "+strings.TrimSuffix(want, "u10 90ms, ") {
		t.Error(got)
	}
	clock.now = clock.now.Add(2 * slowPeriod)
	if got := list(); got != "" {
		t.Error(got)
	}
}

// However much happens, what is kept stays the same size.
func TestActivityIsBounded(t *testing.T) {
	a := newActivity(newTestClock().time)
	long := strings.Repeat("ü", 1<<16)
	for i := range 1000 {
		o := deferredOutcome
		o.To, o.Mailbox, o.Err, o.Sync = long, fmt.Sprint(i, long), fmt.Errorf("%s", long), time.Duration(i)
		a.add(&o)
		o = refusedOutcome
		o.From = long
		a.add(&o)
	}
	var r statusReport
	a.recent(&r)
	if len(r.Deferred) != failuresKept || len(r.Refused) != failuresKept || len(r.Slowest) != slowListed {
		t.Errorf("%d, %d, %d", len(r.Deferred), len(r.Refused), len(r.Slowest))
	}
	for _, f := range append(r.Deferred, r.Refused...) {
		if n := len(f.To) + len(f.From) + len(f.Mailbox) + len(f.Error); n > 4*(maxShown+3) {
			t.Errorf("%d octets", n)
		}
	}
	if size := unsafe.Sizeof(*a); size > 64<<10 {
		t.Errorf("%d octets", size)
	}
}
