package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells systemd what the daemon is doing (sd_notify(3)). Without NOTIFY_SOCKET
// in the environment every method does nothing. It is safe for concurrent use.
type notifier struct {
	log    *slog.Logger
	owes   atomic.Bool // ready could not be told
	failed atomic.Bool // the last message could not be sent
}

// notifyPatience is how long systemd may take to read: its socket holds a bounded
// number of messages, of all services, and the daemon has a signal to heed.
const notifyPatience = 2 * time.Second

// ready says that the daemon serves, at start and after a reload. What could not be told
// goes with the next status.
func (n *notifier) ready(status string) {
	n.owes.Store(!n.send(sd.SdNotifyReady, statusLine(status)))
}

// reloading begins a reload, which ready ends. Type=notify-reload wants to know since
// when on the monotonic clock.
func (n *notifier) reloading() {
	n.send(sd.SdNotifyReloading, sd.SdNotifyMonotonicUsec(), statusLine("reloading"))
}

// stopping says that the daemon takes no more connections.
func (n *notifier) stopping(status string) { n.send(sd.SdNotifyStopping, statusLine(status)) }

// status is the line that systemctl status shows.
func (n *notifier) status(status string) {
	if n.owes.Load() {
		n.ready(status)
		return
	}
	n.send(statusLine(status))
}

func statusLine(status string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' ' // a line feed would begin another variable
		}
		return r
	}, status)
}

func (n *notifier) send(variables ...string) bool {
	for i := range variables {
		variables[i] = strings.TrimRight(variables[i], "\n")
	}
	err := tellSystemd(strings.Join(variables, "\n"))
	if before := n.failed.Swap(err != nil); err != nil && !before {
		n.log.Warn("telling systemd", "error", err)
	}
	return err == nil
}

// tellSystemd is sd.SdNotify that does not wait for ever while nobody reads.
func tellSystemd(text string) error {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyPatience)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(text))
	return err
}

// watchdogInterval is how often watchdog has to run: half of WatchdogSec=, 0 without it.
func (n *notifier) watchdogInterval() time.Duration {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		n.log.Warn("watchdog is off", "error", err)
		return 0
	}
	return limit / 2
}

// watchdog pings systemd at each tick until ctx is done, as long as healthy returns
// nil: when it fails, or does not return, systemd kills and restarts the daemon.
func (n *notifier) watchdog(ctx context.Context, ticks <-chan time.Time, healthy func() error) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if err := healthy(); err != nil {
			n.log.Error("not healthy: no ping for the watchdog", "error", err)
			continue
		}
		n.send(sd.SdNotifyWatchdog)
	}
}

// runWatchdog runs watchdog with a ticker of its own, if systemd asks for pings.
func (n *notifier) runWatchdog(ctx context.Context, healthy func() error) {
	interval := n.watchdogInterval()
	if interval <= 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	n.watchdog(ctx, ticker.C, healthy)
}
