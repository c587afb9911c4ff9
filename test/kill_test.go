package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// Killed with SIGKILL again and again while Postfix delivers, lmtpd loses
// nothing, doubles nothing and leaves no half message.
// LMTPD_TEST_KILLS says how often; few by default.
func TestKilledUnderPostfix(t *testing.T) {
	kills := 4
	if s := os.Getenv("LMTPD_TEST_KILLS"); s != "" {
		kills = atoi(t, s)
	}
	const users = 30
	var names []string
	for i := range users {
		names = append(names, "kill"+strconv.Itoa(i))
	}
	// Postfix comes again at once.
	s := startVirtualSite(t, names, "\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\n")

	type sent struct {
		id      string
		message []byte
		to      []string
	}
	var all []sent
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(1, 2))
		for n := 0; n < 40*kills+40 && !stopped.Load(); n++ {
			var b bytes.Buffer
			fmt.Fprintf(&b, "From: <a@example.net>\r\nX-Number: %d\r\n\r\n", n)
			for range rng.IntN(400) {
				fmt.Fprintf(&b, "%032x\r\n", rng.Uint64())
			}
			m := sent{message: b.Bytes()}
			for _, u := range rng.Perm(users)[:1+rng.IntN(14)] {
				m.to = append(m.to, names[u]+"@example.org")
			}
			m.id = s.submit(t, "a@example.net", "", m.to, m.message)
			all = append(all, m)
		}
	}()
	killed := 0
	for ; killed < kills; killed++ {
		// In the middle of traffic: after some more deliveries.
		s.agent.stderr.awaitCount(t, s.agent.stderr.count()+1+rand.IntN(25), done)
		s.agent.signal(t, syscall.SIGKILL)
		s.agent.wait(t)
		os.Remove(filepath.Join(s.dir, "notify"))
		s.agent = startLMTPD(t, agentOptions{
			dir:    s.dir,
			config: contrib(t, "lmtpd.virtual.toml", "/run/lmtpd", filepath.Dir(s.sock), "/etc/lmtpd", s.dir),
			as:     s.owner,
		})
		s.flush(t)
	}
	stopped.Store(true)
	<-done
	if t.Failed() {
		return
	}
	for _, m := range all {
		s.flush(t)
		s.gone(t, m.id)
	}

	copies := make(map[string]int) // "number user"
	for _, u := range names {
		clearTmp(t, s.maildir(u))
		for _, m := range messages(t, s.maildir(u)) {
			_, rest, _ := strings.Cut(string(m.content), "\nX-Number: ")
			number, _, _ := strings.Cut(rest, "\n")
			n, err := strconv.Atoi(number)
			if err != nil || n >= len(all) || !bytes.HasSuffix(m.content, asStored(all[n].message)) {
				t.Errorf("%s: %s is no message that was sent", u, m.name)
				continue
			}
			copies[number+" "+u+"@example.org"]++
		}
	}
	deliveries, lost, doubled := 0, 0, 0
	for n, m := range all {
		for _, to := range m.to {
			deliveries++
			switch c := copies[strconv.Itoa(n)+" "+to]; {
			case c == 0:
				lost++
				t.Errorf("message %d (%s) for %s is lost", n, m.id, to)
			case c > 1:
				doubled++
				t.Errorf("message %d (%s) for %s is there %d times", n, m.id, to, c)
			}
		}
	}
	t.Logf("%d messages, %d deliveries, %d times SIGKILL: %d lost, %d doubled", len(all), deliveries, killed, lost, doubled)
}

// clearTmp removes what killed deliveries have left in tmp/, where the way is by
// tmp/. No reader looks there.
func clearTmp(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}
