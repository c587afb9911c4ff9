package main

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lmtpd/lmtpd/delivery/writer"
)

// writerWatch is what the front sees of the writer process, which has no socket for
// operators: it would be another way to it.
type writerWatch struct {
	counts writer.Counts // of all clients that there have been
	socket atomic.Pointer[string]
}

// writerReport is the part of a status report about the writer process.
type writerReport struct {
	Socket      string `json:"socket"`
	Connections int64  `json:"connections"`
	Reconnects  uint64 `json:"reconnects"`
	Answered    uint64 `json:"answered"`
	Unavailable uint64 `json:"unavailable"`
	Lost        uint64 `json:"lost"`
	Refused     uint64 `json:"refused"`
	Forbidden   uint64 `json:"forbidden_copies"`
}

// use is told of the client that requests go to now; nil: this process writes.
func (w *writerWatch) use(c *writer.Client) {
	if c == nil {
		w.socket.Store(nil)
		return
	}
	w.socket.Store(&c.Address)
}

// report is nil where this process writes the mail itself.
func (w *writerWatch) report() *writerReport {
	socket := w.socket.Load()
	if socket == nil {
		return nil
	}
	n := &w.counts
	return &writerReport{
		Socket: *socket, Connections: n.Open.Load(), Reconnects: n.Reconnects.Load(),
		Answered: n.Answered.Load(), Unavailable: n.Unavailable.Load(), Lost: n.Lost.Load(), Refused: n.Refused.Load(),
		Forbidden: n.Forbidden.Load(),
	}
}

// screen is the report for people.
func (r *writerReport) screen(b *strings.Builder) {
	fmt.Fprintf(b, "writer         %s, %d connections, %d renewed\n", printable(r.Socket), r.Connections, r.Reconnects)
	fmt.Fprintf(b, "               requests: %d answered, %d unavailable, %d lost, %d refused; %d copies forbidden\n",
		r.Answered, r.Unavailable, r.Lost, r.Refused, r.Forbidden)
}

// collectors are the metrics of it. They are there, and zero, where this process
// writes the mail itself.
func (w *writerWatch) collectors() []prometheus.Collector {
	n := &w.counts
	counter := func(name, help string, labels prometheus.Labels, v *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "lmtpd", Subsystem: "writer", Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(v.Load()) })
	}
	all := []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "lmtpd", Subsystem: "writer", Name: "connections", Help: "Connections to the writer process that are open now.",
		}, func() float64 { return float64(n.Open.Load()) }),
		counter("connections_total", "Connections to the writer process since the start.", nil, &n.Made),
		counter("reconnects_total", "Connections to the writer process that were found ended, because it was restarted.", nil, &n.Reconnects),
		counter("forbidden_copies_total", "Copies that the writer process did not write because owner or path are not those that it finds itself.", nil, &n.Forbidden),
	}
	for outcome, v := range map[string]*atomic.Uint64{
		"answered": &n.Answered, "unavailable": &n.Unavailable, "lost": &n.Lost, "refused": &n.Refused,
	} {
		all = append(all, counter("requests_total", "Requests to the writer process by what became of them.", prometheus.Labels{"outcome": outcome}, v))
	}
	return all
}
