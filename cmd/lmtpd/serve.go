package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/confine"
	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/writer"
	"github.com/lmtpd/lmtpd/protocol"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "run the daemon",
		Long: "Run the daemon in the foreground, on the sockets that systemd passes and on those\nthat the configuration names. SIGHUP reloads the configuration and the user files,\n" +
			"SIGTERM and SIGINT end the daemon once its transactions are over, a second one at once.",
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runDaemon(*path, (*daemon).setUpServe)
	}
	return cmd
}

// statusInterval is how often the STATUS line is renewed while there is news.
const statusInterval = 5 * time.Second

// daemon is lmtpd serve, or lmtpd writer, while it runs. Its methods belong to one
// goroutine.
type daemon struct {
	path      string
	load      func(*config) error // brings a configuration into service
	log       *slog.Logger
	listeners *listeners
	notify    *notifier
	counts    outcomeCounts
	observer  *observer  // nil: nobody asks
	endpoints *endpoints // of observer

	agents   agents
	notices  sync.WaitGroup // quota warnings on their way, of all configurations
	confined bool           // this process has given up rights
	allowed  []confine.Path // nil: files are not confined
	client   *writer.Client // nil: this process writes the mail

	patience drainPatience
	current  *service
	old      []*service    // of former configurations, whose last sessions are still open
	pings    chan struct{} // asks the goroutine for a sign of life
	idle     idleClock
}

// server is a protocol.Server or a writer.Server.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
	Sessions() int
}

// service is what serves one configuration.
type service struct {
	servers map[listenProto]server
	bounds  []boundListener
	failed  chan error // a listener that ended for another reason than shutdown

	idleExit time.Duration // 0: stay
}

// runDaemon is a daemon from its first line to its last; setUp brings its first
// configuration into service.
func runDaemon(path string, setUp func(*daemon, *config) error) error {
	tuneRuntime()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)

	c, err := loadConfig(path)
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	log, err := openLog(c, os.Stderr, os.Getenv("JOURNAL_STREAM"), journalSocket)
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	inherited, err := socketsFromSystemd()
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	d := &daemon{path: path, log: log, listeners: newListeners(inherited, log), notify: &notifier{log: log}, pings: make(chan struct{})}
	defer func() {
		if d.endpoints != nil {
			d.endpoints.close()
		}
	}()
	if err := setUp(d, c); err != nil {
		d.listeners.close()
		return &exitError{exitConfig, err.Error()}
	}
	d.notify.ready(d.status())
	d.log.Info("serving", "version", version(), "config", path, "sockets", d.current.addresses())

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go d.notify.runWatchdog(ctx, d.healthy)
	return d.loop(signals)
}

// tuneRuntime lets Go run more threads at a time than there are processors. One that
// waits for the disk in a system call keeps its place until the runtime notices, and
// that takes as long as the call itself: with two places, two syncs stop everything.
// More places than half as many again cost more than they bring, since most of those
// who wait for the disk wait for one of them that syncs.
// It also keeps less garbage than Go would: the heap is small, so that collecting it
// more often costs little.
func tuneRuntime() {
	if os.Getenv("GOMAXPROCS") == "" {
		n := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(n + (n+1)/2)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(75)
	}
}

// setUpServe makes d the daemon that speaks LMTP.
func (d *daemon) setUpServe(c *config) error {
	d.load = d.start
	d.observer = newObserver(time.Now)
	d.endpoints = &endpoints{log: d.log, observer: d.observer}
	if err := d.endpoints.apply(c); err != nil {
		return err
	}
	return d.start(c)
}

// loop waits for what concerns the daemon as a whole.
func (d *daemon) loop(signals <-chan os.Signal) error {
	ticker := time.NewTicker(statusInterval)
	defer ticker.Stop()
	shown := ""
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				d.reload()
				continue
			}
			return d.drain(sig, signals)
		case err := <-d.current.failed:
			d.log.Error("a listener has failed", "error", err)
			d.drain(syscall.SIGTERM, signals)
			return &exitError{exitTemporary, err.Error()}
		case <-d.pings:
			d.sessions()
		case <-ticker.C:
			if s := d.status(); s != shown || d.notify.owes.Load() {
				d.notify.status(s)
				shown = s
			}
			if d.mayLeave(time.Now()) {
				d.log.Info("idle: the next connection starts lmtpd again", "idle_exit", d.current.idleExit)
				return d.drain(syscall.SIGTERM, signals)
			}
		}
	}
}

// start brings a configuration into service, in the place of the current one. On
// an error nothing has changed.
func (d *daemon) start(c *config) error {
	if err := d.stillAllowed(c); err != nil {
		return err
	}
	if err := c.checkCommands(os.Geteuid()); err != nil {
		return err
	}
	c.inheritedPorts = d.listeners.ports()
	if a := d.agents.current.Load(); a != nil {
		c.former, c.formerCommands = a.Transports.Named, a.Quota.Commands
	}
	agent, err := buildAgent(c, d.log)
	if err != nil {
		return err
	}
	client := d.writerOf(c)
	if client != nil {
		agent.Writer = client
	}
	agent.Report = func(o delivery.Outcome) {
		d.counts.add(o)
		d.observer.outcome(o)
	}
	agent.Noticed = d.observer.metrics.noticed
	agent.Beside = &d.notices
	var databases []*lookupCounts
	agent.Users, databases = d.observer.observe(agent.Users)
	if err := d.startAgent(c, agent); err != nil {
		return err
	}
	d.useWriter(client)
	d.confineFront(c)
	d.observer.metrics.transports(c)
	d.observer.loaded(d.path, d.current.addresses(), databases)
	return nil
}

func (d *daemon) startAgent(c *config, agent *delivery.Agent) error {
	remember := func() (err error) {
		if d.current == nil {
			d.agents.redelivery, err = c.openRedelivery(d.log)
		}
		agent.Redelivery = d.agents.redelivery
		return err
	}
	return d.replace(c, remember, func(p listenProto) server {
		d.agents.current.Store(agent)
		srv := buildServer(c, p, &d.agents, d.log)
		srv.Timeouts.Drain = d.patience.orDefault().deliveries
		if d.observer != nil {
			d.observer.watch(srv, p)
		}
		return srv
	})
}

// replace opens the sockets of c and serves them by new servers, one for each
// protocol, in the place of the current ones, once ready allows it. On an error
// nothing has changed.
func (d *daemon) replace(c *config, ready func() error, newServer func(listenProto) server) error {
	change, err := d.listeners.prepare(c)
	if err != nil {
		return err
	}
	if err = checkIdleExit(c, change.bound()); err == nil {
		err = ready()
	}
	if err != nil {
		change.abort()
		return err
	}
	s := &service{servers: make(map[listenProto]server), bounds: change.bound(), idleExit: time.Duration(c.Limits.IdleExit)}
	s.failed = make(chan error, len(s.bounds))
	for _, b := range s.bounds {
		srv := s.servers[b.Protocol]
		if srv == nil {
			srv = newServer(b.Protocol)
			s.servers[b.Protocol] = srv
		}
		go func() {
			err := srv.Serve(b.Listener)
			if err != protocol.ErrServerClosed && err != writer.ErrServerClosed && !errors.Is(err, net.ErrClosed) {
				s.failed <- fmt.Errorf("%s: %w", b.Address, err)
			}
		}()
	}
	change.commit()
	if d.current != nil {
		d.current.retire()
		d.old = append(d.old, d.current)
	}
	d.old = slices.DeleteFunc(d.old, func(s *service) bool { return s.sessions() == 0 })
	d.current = s
	return nil
}

// retire takes no more connections. Open sessions go on: their client may be
// Postfix, which keeps them for the next message and defers it where a session
// is closed under its hands.
func (s *service) retire() {
	for _, b := range s.bounds {
		b.Listener.Close()
	}
}

// reload takes a new configuration, or says why not and keeps the old one.
// Open sessions go on, and their next message goes the new way; only the limits
// and timeouts of a session stay those that it began with.
func (d *daemon) reload() {
	d.notify.reloading()
	c, err := loadConfig(d.path)
	if err == nil {
		err = d.load(c)
	}
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			d.log.Error("configuration refused, the old one stays", "error", line)
		}
		if d.observer != nil {
			d.observer.refused(err)
		}
	} else {
		if d.endpoints != nil {
			if err := d.endpoints.apply(c); err != nil {
				d.log.Error("a socket for operators stays as it was", "error", err)
			}
		}
		d.log.Info("configuration reloaded", "config", d.path, "sockets", d.current.addresses())
	}
	d.notify.ready(d.status())
}

func (s *service) addresses() []string {
	var list []string
	for _, b := range s.bounds {
		list = append(list, string(b.Protocol)+" "+b.Address)
	}
	return list
}

func (s *service) sessions() (n int) {
	for _, srv := range s.servers {
		n += srv.Sessions()
	}
	return n
}

// mayLeave reports whether the daemon has been idle for as long as configured.
func (d *daemon) mayLeave(now time.Time) bool {
	idle := d.idle.idle(now, d.sessions(), d.counts.sum())
	return d.current.idleExit > 0 && idle >= d.current.idleExit
}

// healthy returns once the daemon's goroutine answers; it hangs with it, and with
// the locks of the servers.
func (d *daemon) healthy() error {
	d.pings <- struct{}{}
	return nil
}

func (d *daemon) sessions() int {
	n := d.current.sessions()
	for _, s := range d.old {
		n += s.sessions()
	}
	return n
}

func (d *daemon) status() string {
	return fmt.Sprintf("%d sessions; %d delivered, %d deferred, %d refused", d.sessions(),
		d.counts.delivered.Load(), d.counts.deferred.Load(), d.counts.refused.Load())
}
