package main

import (
	"context"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
)

// observer is told what the daemon does and answers what operators ask: metrics for
// Prometheus, a report for `lmtpd status`. It lives as long as the daemon, across
// reloads, and is safe for concurrent use. What it costs a delivery is measured by
// BenchmarkObserver.
type observer struct {
	metrics  *metrics
	activity *activity
	tracer   *tracer
	writer   writerWatch
	clock    func() time.Time

	open, total atomic.Int64 // sessions
	service     atomic.Pointer[serviceInfo]
}

// serviceInfo is the configuration in force. It is replaced and never changed.
type serviceInfo struct {
	Config  string    `json:"file"`
	Loaded  time.Time `json:"loaded"`
	Sockets []string  `json:"sockets"`
	// Refused is why the file as it is now is not in force; "" if it is.
	Refused string `json:"refused,omitempty"`

	databases []*lookupCounts
}

// lookupCounts are the answers of one database, by lookupOutcomes.
type lookupCounts struct {
	Database string
	counts   [len(lookupOutcomes)]atomic.Uint64
}

func newObserver(clock func() time.Time) *observer {
	o := &observer{metrics: newMetrics(), activity: newActivity(clock), tracer: &tracer{clock: clock}, clock: clock}
	o.metrics.registry.MustRegister(o.writer.collectors()...)
	return o
}

// outcome is for delivery.Agent's Report.
func (o *observer) outcome(out delivery.Outcome) {
	o.metrics.outcome(&out)
	o.activity.add(&out)
}

// watch counts and traces the sessions of a server that does not serve yet.
func (o *observer) watch(srv *protocol.Server, proto listenProto) {
	open, total := o.metrics.sessions.WithLabelValues(string(proto)), o.metrics.sessionsTotal.WithLabelValues(string(proto))
	srv.Trace = &protocol.Trace{Wire: o.tracer.wire}
	connect, closed := srv.Policy.Connect, srv.Policy.Close
	srv.Policy.Connect = func(ctx context.Context, s *protocol.Session) (r protocol.Reply) {
		o.open.Add(1)
		o.total.Add(1)
		open.Inc()
		total.Inc()
		if connect != nil {
			r = connect(ctx, s)
		}
		return r
	}
	srv.Policy.Close = func(ctx context.Context, s *protocol.Session, err error) {
		o.open.Add(-1)
		open.Dec()
		o.tracer.ended(s)
		if closed != nil {
			closed(ctx, s, err)
		}
	}
}

// loaded is told of a configuration that is in force now.
func (o *observer) loaded(path string, sockets []string, databases []*lookupCounts) {
	now := o.clock()
	o.service.Store(&serviceInfo{Config: path, Loaded: now, Sockets: sockets, databases: databases})
	o.metrics.reloadGood.Set(1)
	o.metrics.reloadTime.Set(float64(now.Unix()))
}

// refused is told of a configuration that did not come into force.
func (o *observer) refused(err error) {
	o.metrics.reloadGood.Set(0)
	if now := o.service.Load(); now != nil {
		next := *now
		next.Refused = clip(err.Error())
		o.service.Store(&next)
	}
}

// statusReport is what `lmtpd status` shows, and its --json prints. Fields are only
// ever added.
type statusReport struct {
	Version  string         `json:"version"`
	Go       string         `json:"go"`
	PID      int            `json:"pid"`
	Started  time.Time      `json:"started"`
	Now      time.Time      `json:"now"`
	Service  serviceInfo    `json:"configuration"`
	Sessions sessionReport  `json:"sessions"`
	Writer   *writerReport  `json:"writer,omitempty"` // nil: the daemon writes the mail itself
	Totals   tally          `json:"totals"`
	Rates    []rate         `json:"rates"`
	Lookups  []lookupReport `json:"lookups"`
	Slowest  []slowMailbox  `json:"slowest"`
	Deferred []failure      `json:"last_deferred"`
	Refused  []failure      `json:"last_refused"`
}

type sessionReport struct {
	Open  int64 `json:"open"`
	Total int64 `json:"total"`
}

type lookupReport struct {
	Database string            `json:"database"`
	Answers  map[string]uint64 `json:"answers"`
}

func (o *observer) report() *statusReport {
	r := &statusReport{
		Version: version(), Go: runtime.Version(), PID: os.Getpid(), Started: o.activity.start, Now: o.clock(),
		Sessions: sessionReport{o.open.Load(), o.total.Load()},
		Writer:   o.writer.report(),
	}
	if s := o.service.Load(); s != nil {
		r.Service = *s
		for _, d := range s.databases {
			l := lookupReport{Database: d.Database, Answers: map[string]uint64{}}
			for i, name := range lookupOutcomes {
				l.Answers[name] = d.counts[i].Load()
			}
			r.Lookups = append(r.Lookups, l)
		}
	}
	o.activity.recent(r)
	return r
}
