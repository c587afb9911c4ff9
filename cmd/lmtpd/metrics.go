package main

import (
	"context"
	"errors"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/userdb"
)

// metrics are the daemon's figures for Prometheus, in a registry of their own. The
// number of series is bounded by the configuration: no label holds an address.
type metrics struct {
	registry *prometheus.Registry

	deliveries *prometheus.CounterVec // by transport and outcome
	bytes      prometheus.Counter
	duplicates *prometheus.CounterVec // by kind
	overQuota  prometheus.Counter
	stale      prometheus.Counter
	notices    *prometheus.CounterVec // by way and outcome
	errors     *prometheus.CounterVec // by errno
	phases     [4]prometheus.Observer // lookup, spool, write, sync

	lookups    *prometheus.CounterVec   // by database and outcome
	lookupTime *prometheus.HistogramVec // by database

	sessions      *prometheus.GaugeVec // by protocol
	sessionsTotal *prometheus.CounterVec

	reloadGood prometheus.Gauge
	reloadTime prometheus.Gauge
}

// latencies are the bounds of all histograms, in seconds: from a body in memory to
// a disk that hangs.
var latencies = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "lmtpd", Name: name, Help: help}
	}
	m.deliveries = prometheus.NewCounterVec(counter("recipients_total", "Recipients by transport and by what became of them."), []string{"transport", "outcome"})
	m.bytes = prometheus.NewCounter(counter("delivered_bytes_total", "Octets written to mailboxes."))
	m.duplicates = prometheus.NewCounterVec(counter("duplicates_suppressed_total", "Copies not written because there was one: recipient named twice, or message that came again."), []string{"kind"})
	m.overQuota = prometheus.NewCounter(counter("quota_refusals_total", "Recipients whose mailbox was full."))
	m.stale = prometheus.NewCounter(counter("stale_files_removed_total", "Files of crashed deliveries removed from tmp/, as the deliveries after them have told."))
	m.notices = prometheus.NewCounterVec(counter("quota_notices_total", "Quota warnings by the way they went, mail or command, and by what became of them."), []string{"by", "outcome"})
	m.errors = prometheus.NewCounterVec(counter("delivery_errors_total", "Temporary failures by the error of the operating system; other: not from there."), []string{"errno"})
	phases := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "lmtpd", Name: "delivery_phase_seconds", Buckets: latencies,
		Help: "Time of each part of a delivery: lookup, spool, write, sync.",
	}, []string{"phase"})
	for i, name := range []string{"lookup", "spool", "write", "sync"} {
		m.phases[i] = phases.WithLabelValues(name)
	}
	m.lookups = prometheus.NewCounterVec(counter("lookups_total", "Questions to each user database by its answer."), []string{"database", "outcome"})
	m.lookupTime = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "lmtpd", Name: "lookup_seconds", Buckets: latencies, Help: "Time that each user database took to answer.",
	}, []string{"database"})
	m.sessions = prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "lmtpd", Name: "sessions", Help: "Sessions open now."}, []string{"protocol"})
	m.sessionsTotal = prometheus.NewCounterVec(counter("sessions_total", "Sessions since the start."), []string{"protocol"})
	m.reloadGood = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lmtpd", Name: "config_last_reload_successful", Help: "Whether the configuration as it was last read is in force.",
	})
	m.reloadTime = prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lmtpd", Name: "config_last_reload_success_timestamp_seconds", Help: "When the configuration in force was read.",
	})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "lmtpd", Name: "build_info", Help: "Always 1; the labels tell the version.",
		ConstLabels: prometheus.Labels{"version": version(), "goversion": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.deliveries, m.bytes, m.duplicates, m.overQuota, m.stale, m.notices, m.errors, phases, m.lookups, m.lookupTime,
		m.sessions, m.sessionsTotal, m.reloadGood, m.reloadTime, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.zero()
	return m
}

// zero makes the series that alerts are about exist from the start: an alert on the
// increase of a counter misses the first one otherwise.
func (m *metrics) zero() {
	for _, status := range []string{"delivered", "deferred", "refused"} {
		m.deliveries.WithLabelValues("maildir", status)
		m.deliveries.WithLabelValues("none", status)
	}
	for _, p := range []listenProto{protoLMTP, protoSMTP} {
		m.sessions.WithLabelValues(string(p))
		m.sessionsTotal.WithLabelValues(string(p))
	}
	for _, e := range errnos {
		m.errors.WithLabelValues(e.name)
	}
	m.errors.WithLabelValues("other")
	for _, by := range []string{"mail", "command"} {
		m.notices.WithLabelValues(by, "sent")
		m.notices.WithLabelValues(by, "failed")
	}
	m.duplicates.WithLabelValues("recipient")
	m.duplicates.WithLabelValues("message")
}

// transports makes the series of those that a configuration has exist.
func (m *metrics) transports(c *config) {
	for _, t := range c.Transport {
		for _, status := range []string{"delivered", "deferred", "refused"} {
			m.deliveries.WithLabelValues(t.Name, status)
		}
	}
}

func (m *metrics) outcome(o *delivery.Outcome) {
	transport := o.Transport
	if transport == "" {
		transport = "none"
	}
	m.deliveries.WithLabelValues(transport, o.Status()).Inc()
	switch {
	case o.Duplicate:
		m.duplicates.WithLabelValues("recipient").Inc()
	case o.Again:
		m.duplicates.WithLabelValues("message").Inc()
	case o.Reply.OK() && o.Transport == "maildir":
		m.bytes.Add(float64(o.Size))
	case o.Reply.Enhanced[1] == 2 && o.Reply.Enhanced[2] == 2:
		m.overQuota.Inc()
	}
	m.stale.Add(float64(o.Stale))
	if o.Reply.Temporary() {
		m.errors.WithLabelValues(errnoName(o.Err)).Inc()
	}
	if o.ID != "" && !o.Duplicate {
		m.phases[0].Observe(o.Lookup.Seconds())
		m.phases[1].Observe(o.Spool.Seconds())
		m.phases[2].Observe(o.Write.Seconds())
		m.phases[3].Observe(o.Sync.Seconds())
	}
}

// noticed is for delivery.Agent's Noticed.
func (m *metrics) noticed(by string, err error) {
	outcome := "sent"
	if err != nil {
		outcome = "failed"
	}
	m.notices.WithLabelValues(by, outcome).Inc()
}

// errnos are the errors that deliveries meet. The list bounds the label.
var errnos = []struct {
	errno syscall.Errno
	name  string
}{
	{syscall.EACCES, "EACCES"}, {syscall.EPERM, "EPERM"}, {syscall.ENOENT, "ENOENT"}, {syscall.ENOTDIR, "ENOTDIR"},
	{syscall.ENOSPC, "ENOSPC"}, {syscall.EDQUOT, "EDQUOT"}, {syscall.EFBIG, "EFBIG"}, {syscall.EROFS, "EROFS"},
	{syscall.EIO, "EIO"}, {syscall.ESTALE, "ESTALE"}, {syscall.ELOOP, "ELOOP"}, {syscall.EXDEV, "EXDEV"},
	{syscall.EMFILE, "EMFILE"}, {syscall.ENFILE, "ENFILE"}, {syscall.ENOMEM, "ENOMEM"}, {syscall.ETIMEDOUT, "ETIMEDOUT"},
	{syscall.ECONNREFUSED, "ECONNREFUSED"},
}

func errnoName(err error) string {
	var have syscall.Errno
	if errors.As(err, &have) {
		for _, e := range errnos {
			if e.errno == have {
				return e.name
			}
		}
	}
	return "other"
}

// lookupOutcomes are the answers of a database, as label and in `lmtpd status`.
var lookupOutcomes = [...]string{"found", "unknown", "disabled", "failed"}

func lookupOutcome(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, userdb.ErrNoSuchUser), errors.Is(err, userdb.ErrBadAddress):
		return 1
	case errors.Is(err, userdb.ErrDisabled):
		return 2
	}
	return 3
}

// observedDatabase counts the answers of a database.
type observedDatabase struct {
	userdb.Database
	counters [len(lookupOutcomes)]prometheus.Counter
	took     prometheus.Observer
	answers  *lookupCounts
}

// observe puts a counter before each database of a chain. Its series exist from
// then on.
func (o *observer) observe(users userdb.Database) (userdb.Database, []*lookupCounts) {
	chain, ok := users.(userdb.Chain)
	if !ok {
		return users, nil
	}
	observed := make(userdb.Chain, len(chain))
	var names []*lookupCounts
	for i, e := range chain {
		name := e.Database.String()
		d := &observedDatabase{Database: e.Database, took: o.metrics.lookupTime.WithLabelValues(name), answers: &lookupCounts{Database: name}}
		for j, outcome := range lookupOutcomes {
			d.counters[j] = o.metrics.lookups.WithLabelValues(name, outcome)
		}
		observed[i] = userdb.Entry{Database: d, Domains: e.Domains}
		names = append(names, d.answers)
	}
	return observed, names
}

func (d *observedDatabase) Lookup(ctx context.Context, a userdb.Address) (*userdb.User, error) {
	start := time.Now()
	u, err := d.Database.Lookup(ctx, a)
	d.took.Observe(time.Since(start).Seconds())
	n := lookupOutcome(err)
	d.counters[n].Inc()
	d.answers.counts[n].Add(1)
	return u, err
}
