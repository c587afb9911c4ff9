package main

import (
	"fmt"
	"math"
	"time"
)

// target is a figure that lmtpd is to reach.
type target struct {
	what   string
	want   float64
	atMost bool // else: at least
	unit   string
	got    float64
	known  bool // it was measured
}

func (t target) met() bool {
	if t.atMost {
		return t.got <= t.want
	}
	return t.got >= t.want
}

// reach is 1 where the target is just met and more where it is passed.
func (t target) reach() float64 {
	if t.atMost {
		if t.got == 0 {
			return math.Inf(1)
		}
		return t.want / t.got
	}
	return t.got / t.want
}

func (t target) wants() string {
	sign := "≥"
	if t.atMost {
		sign = "≤"
	}
	return fmt.Sprintf("%s %g%s", sign, t.want, t.unit)
}

func (t target) gets() string {
	if !t.known {
		return "not measured"
	}
	return fmt.Sprintf("%.3g%s", t.got, t.unit)
}

// Figures of a sample.
func rate(s sample) float64      { return s.rate }
func cpuMillis(s sample) float64 { return millis(s.cpu) }
func p50(s sample) float64       { return millis(s.p50) }
func p99(s sample) float64       { return millis(s.p99) }
func mebi(s sample) float64      { return float64(s.pss) / (1 << 20) }
func grown(s sample) float64     { return float64(s.grown) / (1 << 20) }
func refusals(s sample) float64  { return float64(s.refused) }
func written(s sample) float64   { return s.written }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// deliveryTargets are those of `bench delivery`.
func deliveryTargets(r results) []target {
	ratio := func(what, scenario, ours, theirs string, of func(sample) float64, want float64, atMost bool) target {
		a, ok1 := r.median(scenario, ours, of)
		b, ok2 := r.median(scenario, theirs, of)
		t := target{what: what, want: want, atMost: atMost, unit: "×", known: ok1 && ok2 && b != 0}
		if t.known {
			t.got = a / b
		}
		return t
	}
	plain := func(what, scenario string, of func(sample) float64, want float64, unit string, part float64) target {
		v, ok := r.median(scenario, nameLMTPD, of)
		if v == 0 && want > 0 && part == 1 {
			ok = false // where it cannot be measured it is 0
		}
		return target{what: what, want: want, atMost: true, unit: unit, got: v / part, known: ok}
	}
	return []target{
		ratio("a: rate against Dovecot", "a", nameLMTPD, nameDovecot, rate, 3, false),
		ratio("a: p50 against Dovecot", "a", nameLMTPD, nameDovecot, p50, 0.4, true),
		ratio("a: rate against strict, 1 thread", "a", nameLMTPD, strict.name, rate, 0.8, false),
		ratio("b: rate against Dovecot", "b", nameLMTPD, nameDovecot, rate, 4, false),
		ratio("b: rate against strict, 16 threads", "b", nameLMTPD, strict.name, rate, 0.5, false),
		ratio("c: copies, against Dovecot with uid per user", "c", nameLMTPDUsers, nameDovecotUsers, rate, 8, false),
		ratio("c: copies, against copies in phases", "c", nameLMTPD, phases.name, rate, 0.5, false),
		ratio("c: links, against Dovecot", "c", nameLMTPDLinks, nameDovecot, rate, 20, false),
		ratio("c: links, against links", "c", nameLMTPDLinks, links.name, rate, 0.4, false),
		ratio("d: octets/s against Dovecot", "d", nameLMTPD, nameDovecot, rate, 1.8, false),
		ratio("d: octets/s against strict, 4 threads", "d", nameLMTPD, strict.name, rate, 0.7, false),
		plain("d: octets to the disk for each delivered", "d", written, 1.1, "", 1),
		ratio("e: rate against Dovecot", "e", nameLMTPD, nameDovecot, rate, 4, false),
		ratio("e: p99 against Dovecot", "e", nameLMTPD, nameDovecot, p99, 0.4, true),
		ratio("e: rate against strict, 64 threads", "e", nameLMTPD, strict.name, rate, 0.5, false),
		plain("e: refused connections", "e", refusals, 0, "", 1),
		plain("b: CPU per delivery", "b", cpuMillis, 0.35, " ms", 1),
		plain("c: CPU per delivery", "c", cpuMillis, 0.06, " ms", 1),
		plain("e: memory (PSS)", "e", mebi, 25, " MiB", 1),
		plain("10 MiB in 4 sessions: memory per session", "d", grown, 1, " MiB", 4),
		plain("10 MiB in 16 sessions: memory per session", sixteen, grown, 1, " MiB", 16),
		ratio("b, behind Postfix: rate against virtual(8)", queued+"b", nameRelayed, nameVirtual, rate, 1, false),
		ratio("c, behind Postfix: rate against virtual(8)", queued+"c", nameRelayed, nameVirtual, rate, 1, false),
		ratio("d, behind Postfix: rate against virtual(8)", queued+"d", nameRelayed, nameVirtual, rate, 1, false),
		plain("100 connections at once: median wait for LHLO's reply", cold, p50, 10, " ms", 1),
	}
}
