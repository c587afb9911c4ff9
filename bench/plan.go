package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// Names of the contenders, as they stand in tables.
const (
	nameLMTPD        = "lmtpd"
	nameLMTPDUsers   = "lmtpd, uid per user"
	nameLMTPDLinks   = "lmtpd, single_instance"
	nameDovecot      = "Dovecot"
	nameDovecotUsers = "Dovecot, uid per user"
	nameVirtual      = "Postfix, virtual(8)"
	nameRelayed      = "Postfix, lmtpd"
)

// entry is one cell of the tables: a scenario for a contender.
type entry struct {
	scenario, contender string
	measure             func() (sample, error)
}

// key names what several samples are of.
type key struct{ scenario, contender string }

// results holds the samples of all rounds.
type results map[key][]sample

// Scenarios beside those of the load generator.
const (
	cold    = "cold"
	queued  = "queue " // and the name of a scenario
	sixteen = "d16"
)

// scenarioD16 is for memory only.
var scenarioD16 = scenario{sixteen, "16 sessions, 1 recipient, 10 MiB", 16, 1, 10 << 20}

// plan lists what there is to measure, in the order of a round: whoever is
// compared with each other follows each other.
func (b *bench) plan() []entry {
	var all []entry
	server := func(c contender, sc scenario) {
		all = append(all, entry{sc.name, c.name, func() (sample, error) { return b.measureServer(c, sc) }})
	}
	bare := func(c scheme, sc scenario) {
		all = append(all, entry{sc.name, c.name, func() (sample, error) { return b.measureScheme(c, sc) }})
	}
	one := contender{name: nameLMTPD, start: startLMTPD("")}
	each := contender{name: nameLMTPDUsers, perUser: true, start: startLMTPD("")}
	linked := contender{name: nameLMTPDLinks, start: startLMTPD("single_instance = true\n")}
	dovecots := []contender{
		{name: nameDovecot, start: startDovecot},
		{name: nameDovecotUsers, perUser: true, start: startDovecot},
	}
	if b.dovecot == "" {
		dovecots = nil
	}
	for _, sc := range scenarios {
		server(one, sc)
		if b.root {
			server(each, sc)
		}
		if sc.rcpts > 1 && b.links {
			server(linked, sc)
		}
		for _, d := range dovecots {
			server(d, sc)
		}
		if sc.rcpts == 1 {
			bare(strict, sc)
			bare(commit, sc)
		} else {
			bare(phases, sc)
			bare(commit, sc)
			bare(links, sc)
		}
	}
	server(one, scenarioD16)
	for _, c := range append([]contender{one}, dovecots...) {
		all = append(all, entry{cold, c.name, func() (sample, error) { return b.measureCold(c, users) }})
	}
	if b.postfix != "" {
		for _, sc := range []scenario{scenarioB, scenarioC, scenarioD} {
			for _, c := range []contender{
				{name: nameVirtual, start: startVirtual},
				{name: nameRelayed, start: startRelayed},
			} {
				all = append(all, entry{queued + sc.name, c.name, func() (sample, error) { return b.measureEndToEnd(c, sc) }})
			}
		}
	}
	return all
}

// run measures everything in turns.
func (b *bench) run(plan []entry) (results, error) {
	// The disk has to be taken away again, so an interrupt waits for the end of a
	// measurement. A second one does not.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	r := make(results)
	for round := range b.rounds {
		for _, e := range plan {
			if ctx.Err() != nil {
				return r, errors.New("interrupted")
			}
			s, err := e.measure()
			if err != nil {
				return r, fmt.Errorf("round %d, scenario %s, %s: %w", round+1, e.scenario, e.contender, err)
			}
			k := key{e.scenario, e.contender}
			r[k] = append(r[k], s)
			b.say("round %d  %-8s %-28s %8.0f/s  p50 %v  p99 %v  CPU %v  PSS %.1f MiB (%d)  refused %d",
				round+1, e.scenario, e.contender, s.rate, s.p50, s.p99, s.cpu, float64(s.pss)/(1<<20), s.processes, s.refused)
		}
	}
	return r, nil
}

// median gives the middle of a figure over all rounds.
func (r results) median(scenario, contender string, of func(s sample) float64) (float64, bool) {
	samples := r[key{scenario, contender}]
	if len(samples) == 0 {
		return 0, false
	}
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, true
}
