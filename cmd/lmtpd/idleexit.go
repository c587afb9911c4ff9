package main

import (
	"time"
)

// idleClock tells how long a daemon has had nothing to do. The zero value starts with
// the first look.
type idleClock struct {
	since time.Time
	work  uint64
}

// idle is how long it is, at the time now, that there was neither a session nor work
// done: work is a count that grows with each delivery.
func (i *idleClock) idle(now time.Time, sessions int, work uint64) time.Duration {
	if sessions > 0 || work != i.work || i.since.IsZero() {
		i.since, i.work = now, work
	}
	return now.Sub(i.since)
}

// checkIdleExit refuses to leave where nobody would start the daemon again.
func checkIdleExit(c *config, bounds []boundListener) error {
	if c.Limits.IdleExit == 0 {
		return nil
	}
	for _, b := range bounds {
		if !b.Systemd {
			return configErrors{c.doc.fault(c.doc.line("limits.idle_exit"), "limits.idle_exit",
				"nobody would start lmtpd again for its own socket "+b.Address,
				"let systemd open that socket (lmtpd.socket), or remove this line")}
		}
	}
	return nil
}
