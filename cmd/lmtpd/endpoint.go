package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// endpoints are the local sockets that operators ask: one for metrics, one for
// `lmtpd status`. Mail does not depend on them: after the start, what goes wrong
// with one is logged and nothing else.
type endpoints struct {
	log      *slog.Logger
	observer *observer
	metrics  *endpoint
	status   *endpoint
}

// endpoint is one socket with its HTTP server.
type endpoint struct {
	socket *socket
	server *http.Server
}

// defaultStatusSocket is where `lmtpd status` looks without a configuration.
const defaultStatusSocket = "/run/lmtpd/status.sock"

// optionalSocket is a socketAddress that "" leaves out.
type optionalSocket struct{ socketAddress }

// UnmarshalText is that of socketAddress but for "".
func (a *optionalSocket) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = optionalSocket{}
		return nil
	}
	return a.socketAddress.UnmarshalText(text)
}

// listen is the socket of the status as openSocket wants it.
func (s statusConfig) listen() listenConfig {
	return listenConfig{Name: "status", Address: s.Socket.socketAddress, Mode: s.Mode, Group: s.Group}
}

func (m metricsConfig) listen() listenConfig {
	return listenConfig{Name: "metrics", Address: m.Address.socketAddress, Mode: m.Mode, Group: m.Group}
}

// apply opens the sockets that c names and closes those that it does not name any
// more. The error is a configErrors; a socket that cannot be opened leaves the one
// before it in place.
func (e *endpoints) apply(c *config) error {
	var errs configErrors
	set := func(at **endpoint, key string, lc listenConfig, handler func() http.Handler) {
		if err := e.replace(at, lc, handler); err != nil {
			f := &valueError{problem: err.Error()}
			errors.As(err, &f)
			fault := c.doc.fault(c.doc.line(key), key, f.problem, f.remedy)
			if !c.doc.has(key) {
				// Nobody has asked for it: where /run/lmtpd is missing, there is
				// no status, and mail all the same.
				e.log.Info("not listening for lmtpd status", "error", fault.Error())
				return
			}
			errs = append(errs, fault)
		}
	}
	set(&e.metrics, "metrics.address", c.Metrics.listen(), e.observer.metricsHandler)
	set(&e.status, "status.socket", c.Status.listen(), e.observer.statusHandler)
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// replace makes *at listen as lc says, or not at all if that has no address.
func (e *endpoints) replace(at **endpoint, lc listenConfig, handler func() http.Handler) error {
	old := *at
	if old != nil && old.socket.config.Address == lc.Address && old.socket.inPlace() {
		return old.socket.setAccess(lc)
	}
	var next *endpoint
	if lc.Address.Network != "" {
		s, err := openSocket(lc)
		if err != nil {
			return err
		}
		next = &endpoint{socket: s, server: &http.Server{
			Handler:           handler(),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       5 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    8 << 10,
			ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
		}}
		go func() {
			if err := next.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				e.log.Error("a socket for operators has failed", "address", s.address(), "error", err)
			}
		}()
	}
	*at = next
	old.close()
	return nil
}

func (e *endpoint) close() {
	if e != nil {
		_ = e.socket.close() // it knows whether the file is still its own
		_ = e.server.Close()
	}
}

func (e *endpoints) close() {
	e.observer.tracer.close()
	e.metrics.close()
	e.status.close()
	e.metrics, e.status = nil, nil
}

// localOnly refuses what a browser sends: a web page that the operator looks at must
// not read a loopback port through a name that leads here (DNS rebinding).
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip := net.ParseIP(strings.Trim(host, "[]"))
		if host != "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "ask for localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (o *observer) metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.metrics.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	return localOnly(mux)
}

func (o *observer) statusHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(o.report()) // its error is that of a client that has gone
	})
	mux.Handle("GET /trace", o.tracer)
	return localOnly(mux)
}
