package main

import (
	"strings"
	"testing"
	"time"
)

func TestIdleClock(t *testing.T) {
	var clock idleClock
	at := time.Unix(1000, 0)
	for _, step := range []struct {
		after    time.Duration
		sessions int
		work     uint64
		want     time.Duration
	}{
		{0, 0, 0, 0},
		{5 * time.Second, 0, 0, 5 * time.Second},
		{5 * time.Second, 1, 0, 0}, // a session
		{5 * time.Second, 0, 0, 5 * time.Second},
		{5 * time.Second, 0, 7, 0}, // came and went between two looks
		{5 * time.Second, 0, 7, 5 * time.Second},
	} {
		at = at.Add(step.after)
		if got := clock.idle(at, step.sessions, step.work); got != step.want {
			t.Errorf("at %v with %d sessions and %d done: idle for %v, want %v", at.Sub(time.Unix(1000, 0)), step.sessions, step.work, got, step.want)
		}
	}
}

func TestIdleExitWantsSocketsOfSystemd(t *testing.T) {
	c := loadText(t, "[limits]\nidle_exit = '10m'\n")
	theirs := boundListener{Address: "unix:/run/lmtpd/lmtp.sock", Systemd: true}
	ours := boundListener{Address: "tcp:127.0.0.1:24"}
	if err := checkIdleExit(c, []boundListener{theirs}); err != nil {
		t.Error(err)
	}
	err := checkIdleExit(c, []boundListener{theirs, ours})
	if err == nil || !strings.Contains(err.Error(), ":2: limits.idle_exit: nobody would start lmtpd again for its own socket tcp:127.0.0.1:24") {
		t.Errorf("got %v", err)
	}
	if err := checkIdleExit(loadText(t, ""), []boundListener{ours}); err != nil {
		t.Error(err)
	}
}
