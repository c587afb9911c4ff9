package main

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"
)

// drainPatience is how long the end of the daemon waits, from the signal on. A zero field
// means the default; all of it, and noticePatience, is less than TimeoutStopSec= of the
// packaged units, after which systemd kills what is left.
type drainPatience struct {
	deliveries time.Duration // for deliveries: they are told to end then, and answered 4xx
	all        time.Duration // for clients: their connections are closed then
}

func (p drainPatience) orDefault() drainPatience {
	if p.deliveries == 0 {
		p.deliveries = 80 * time.Second
	}
	if p.all == 0 {
		p.all = 95 * time.Second
	}
	return p
}

// noticePatience is how long the end of the daemon waits for quota warnings.
const noticePatience = 10 * time.Second

// drain ends the daemon: no connection is taken any more, transactions in
// progress finish and get their replies. What takes too long, or a second signal, cuts
// them off.
func (d *daemon) drain(sig os.Signal, signals <-chan os.Signal) error {
	d.log.Info("stopping: transactions in progress are finished", "signal", sig.String())
	d.notify.stopping("finishing transactions")
	d.listeners.close()
	ctx, cancel := context.WithTimeout(context.Background(), d.patience.orDefault().all)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		var all sync.WaitGroup
		for _, s := range append(d.old, d.current) {
			all.Go(func() { s.shutdown(ctx) })
		}
		all.Wait()
		err := ctx.Err()
		d.awaitNotices()
		done <- err
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				d.log.Warn("stopped, and not all transactions were over: they are cut off, their clients will try again")
				return &exitError{code: exitTemporary}
			}
			d.log.Info("stopped", "delivered", d.counts.delivered.Load(), "deferred", d.counts.deferred.Load(), "refused", d.counts.refused.Load())
			return nil
		case <-d.pings:
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			d.log.Warn("stopped by a second signal: open transactions are cut off, their clients will try again", "signal", sig.String())
			return &exitError{code: exitTemporary}
		}
	}
}

func (d *daemon) awaitNotices() {
	over := make(chan struct{})
	go func() {
		defer close(over)
		d.notices.Wait()
	}()
	select {
	case <-over:
	case <-time.After(noticePatience):
		d.log.Warn("quota warnings are cut off")
	}
}

// shutdown drains all servers of a service side by side.
func (s *service) shutdown(ctx context.Context) {
	var all sync.WaitGroup
	for _, srv := range s.servers {
		all.Go(func() { srv.Shutdown(ctx) })
	}
	all.Wait()
}
