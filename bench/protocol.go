package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Names of the contenders of `bench protocol`.
const (
	nameProtocol = "lmtpd protocol"
	nameGoSMTP   = "go-smtp"
	nameAiosmtpd = "aiosmtpd"
)

// protocolScenario is a shape of traffic into nothing.
type protocolScenario struct {
	name, what string
	lmtp       bool
	rcpts      int
	size       int
	ahead      bool
}

const wireSessions = 16

var protocolScenarios = []protocolScenario{
	{"lmtp", "LMTP, 16 sessions, 1 recipient, 4 KiB", true, 1, 4 << 10, false},
	{"ahead", "the same, and the next envelope is sent right behind each message", true, 1, 4 << 10, true},
	{"smtp", "SMTP, 16 sessions, 1 recipient, 4 KiB", false, 1, 4 << 10, false},
	{"small", "LMTP, 16 sessions, 1 recipient, a message without text", true, 1, 0, false},
	{"lists", "LMTP, 16 sessions, 50 recipients, 4 KiB", true, 50, 4 << 10, false},
	{"large", "LMTP, 16 sessions, 1 recipient, 1 MiB", true, 1, 1 << 20, false},
}

// discarder is a server that drops what it gets: a program that takes "lmtp" or
// "smtp" and the path of a socket.
type discarder struct {
	name    string
	command []string
}

// protocolBench is one run of `bench protocol`.
type protocolBench struct {
	options
	servers []discarder
	results results
}

func benchProtocol(o options) error {
	p := &protocolBench{options: o, results: make(results)}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	if err := p.build(); err != nil {
		return err
	}
	if p.short {
		p.rounds = 1
	}
	for range p.rounds {
		for _, sc := range protocolScenarios {
			for _, d := range p.servers {
				if err := p.one(sc.name, d, func() (sample, error) { return p.measure(d, sc) }); err != nil {
					return err
				}
			}
		}
		for _, d := range p.servers {
			if err := p.one(idleScenario, d, func() (sample, error) { return p.measureIdle(d) }); err != nil {
				return err
			}
		}
	}
	return o.publish("protocol", protocolTables(p.results), protocolTargets(p.results))
}

// build makes the servers. What Python offers is there or not.
func (p *protocolBench) build() error {
	ours, theirs := filepath.Join(p.dir, "discard"), filepath.Join(p.dir, "gosmtp")
	if err := build(ours, "./bench/discard", "."); err != nil {
		return err
	}
	p.servers = []discarder{{nameProtocol, []string{ours}}}
	if p.short {
		return nil
	}
	if err := build(theirs, "./gosmtp", "bench/rivals"); err != nil {
		return err
	}
	p.servers = append(p.servers, discarder{nameGoSMTP, []string{theirs}})
	if exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run() != nil {
		return errors.New("no aiosmtpd here; bench/setup.sh installs it")
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	p.servers = append(p.servers, discarder{nameAiosmtpd, []string{"/usr/bin/python3", filepath.Join(root, "bench/rivals/aiosmtpd_discard.py")}})
	return nil
}

func (p *protocolBench) one(scenario string, d discarder, measure func() (sample, error)) error {
	if !p.only.MatchString(scenario + "/" + d.name) {
		return nil
	}
	if d.name == nameAiosmtpd && scenario == "lists" {
		return nil // it gives one reply for all recipients, which is not LMTP
	}
	s, err := measure()
	if err != nil {
		return fmt.Errorf("%s, %s: %w", scenario, d.name, err)
	}
	k := key{scenario, d.name}
	p.results[k] = append(p.results[k], s)
	fmt.Printf("%-6s %-16s %8.0f/s  CPU %v (client %v)  PSS %.1f MiB (+%.1f)  failed %d\n",
		scenario, d.name, s.rate, s.cpu, s.client, float64(s.pss)/(1<<20), float64(s.grown)/(1<<20), s.refused)
	return nil
}

// with starts a server, hands it to f and ends it.
func (d discarder) with(dir, mode string, f func(path string, p *process) error) error {
	path := filepath.Join(dir, "discard.sock")
	os.Remove(path)
	cmd := exec.Command(d.command[0], append(d.command[1:len(d.command):len(d.command)], mode, path)...)
	srv, err := start(d.name, filepath.Join(dir, "discard.out"), cmd)
	if err != nil {
		return err
	}
	if err := srv.await(path); err != nil {
		return errors.Join(err, srv.stop())
	}
	if err := f(path, srv); err != nil {
		return fmt.Errorf("%w\n%s", errors.Join(err, srv.stop()), srv.tail())
	}
	return srv.stop()
}

func (p *protocolBench) pace() pace {
	if p.short {
		return pace{each: 2}
	}
	return pace{warm: p.options.measure / 8, measure: p.options.measure}
}

func (p *protocolBench) measure(d discarder, sc protocolScenario) (sm sample, err error) {
	mode := "smtp"
	if sc.lmtp {
		mode = "lmtp"
	}
	err = d.with(p.dir, mode, func(path string, srv *process) error {
		sessions, err := openSessions(path, sc.lmtp, wireSessions)
		defer closeSessions(sessions)
		if err != nil {
			return err
		}
		var cpu, client time.Duration
		n, took, err := transactions(sessions, newExchange(sc.lmtp, sc.rcpts, sc.size, sc.ahead), p.pace(), func(begins bool) {
			if begins {
				cpu, client = srv.group.cpu(), ownCPU()
				return
			}
			cpu, client = srv.group.cpu()-cpu, ownCPU()-client
			sm.pss, sm.processes = srv.group.memory()
		})
		if err != nil || n == 0 {
			return err
		}
		sm.rate, sm.cpu = float64(n)/took.Seconds(), cpu/time.Duration(n)
		sm.client = client / time.Duration(n)
		return nil
	})
	return sm, err
}

// ownCPU is the processor time that the benchmark itself has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func openSessions(path string, lmtp bool, n int) (all []*wireSession, err error) {
	for range n {
		s, err := dialWire(path)
		if err != nil {
			return all, err
		}
		all = append(all, s)
		if err := s.hello(lmtp); err != nil {
			return all, err
		}
	}
	return all, nil
}

func closeSessions(all []*wireSession) {
	for _, s := range all {
		s.close()
	}
}

// Idle sessions, and the clients that come while they are there.
const (
	idleScenario  = "idle"
	idleSessions  = 10000
	honestClients = 1000
)

// measureIdle holds sessions that say nothing after LHLO, has clients deliver a
// message each in sessions of their own, and then looks whether the silent ones
// are still served. refused counts the failures of both; grown is the memory that
// the silent ones take.
func (p *protocolBench) measureIdle(d discarder) (sm sample, err error) {
	idle, honest := idleSessions, honestClients
	if p.short {
		idle, honest = 100, 20
	}
	err = d.with(p.dir, "lmtp", func(path string, srv *process) error {
		first, err := openSessions(path, true, wireSessions)
		closeSessions(first)
		if err != nil {
			return err
		}
		before, _ := srv.group.memory()
		silent, err := openSessions(path, true, idle)
		defer closeSessions(silent)
		if err != nil {
			return fmt.Errorf("after %d idle sessions: %w", len(silent), err)
		}
		sm.pss, sm.processes = srv.group.memory()
		sm.grown = max(0, sm.pss-before)
		begin := time.Now()
		sm.refused = honestTraffic(path, honest)
		sm.rate = float64(honest) / time.Since(begin).Seconds()
		for _, s := range silent {
			if s.ask("NOOP", "250") != nil {
				sm.refused++
			}
		}
		return nil
	})
	return sm, err
}

// honestTraffic has clients come, deliver and go, some at a time, and counts those
// who failed.
func honestTraffic(path string, clients int) int {
	e := newExchange(true, 1, 4<<10, false)
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range wireSessions {
		all.Go(func() {
			for next.Add(1) <= int64(clients) {
				if honestClient(path, e) != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(failed.Load())
}

func honestClient(path string, e *exchange) error {
	s, err := dialWire(path)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.hello(true); err != nil {
		return err
	}
	if err := s.begin(e); err != nil {
		return err
	}
	for done := false; !done; {
		var err error
		if done, err = s.await(e); err == nil && !done {
			err = s.next(e)
		}
		if err != nil {
			return err
		}
	}
	return s.ask("QUIT", "221")
}

func protocolTargets(r results) []target {
	ratio := func(what, scenario, theirs string, of func(sample) float64, want float64, atMost bool) target {
		a, ok1 := r.median(scenario, nameProtocol, of)
		b, ok2 := r.median(scenario, theirs, of)
		t := target{what: what, want: want, atMost: atMost, unit: "×", known: ok1 && ok2 && b != 0}
		if t.known {
			t.got = a / b
		}
		return t
	}
	plain := func(what string, of func(sample) float64, want float64, unit string) target {
		v, ok := r.median(idleScenario, nameProtocol, of)
		return target{what: what, want: want, atMost: true, unit: unit, got: v, known: ok}
	}
	return []target{
		ratio("LMTP: rate against go-smtp", "lmtp", nameGoSMTP, rate, 3, false),
		ratio("LMTP: rate against aiosmtpd", "lmtp", nameAiosmtpd, rate, 10, false),
		ratio("LMTP, envelopes sent ahead: rate against go-smtp", "ahead", nameGoSMTP, rate, 3, false),
		ratio("LMTP: CPU per transaction against go-smtp", "lmtp", nameGoSMTP, cpuMillis, 0.33, true),
		plain("10 000 idle sessions: failures", refusals, 0, ""),
		plain("10 000 idle sessions: memory", grown, 100, " MiB"),
	}
}

func protocolTables(r results) string {
	var b strings.Builder
	table := func(name, what string) {
		fmt.Fprintf(&b, "**%s**: %s\n\n| | transactions/s | CPU µs per transaction | of the client | PSS MiB | grown MiB | failed |\n|---|---|---|---|---|---|---|\n", name, what)
		for _, server := range []string{nameProtocol, nameGoSMTP, nameAiosmtpd} {
			if _, ok := r.median(name, server, rate); !ok {
				continue
			}
			fmt.Fprintf(&b, "| %s |", server)
			for _, of := range []func(sample) float64{rate, func(s sample) float64 { return 1000 * cpuMillis(s) }, func(s sample) float64 { return 1000 * millis(s.client) }, mebi, grown, refusals} {
				v, _ := r.median(name, server, of)
				b.WriteString(" " + figure(v) + " |")
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	for _, sc := range protocolScenarios {
		table(sc.name, sc.what)
	}
	table(idleScenario, "10 000 idle sessions, 1000 clients who come, deliver and go (transactions/s), and 10 000 NOOP at the end")
	return b.String()
}
