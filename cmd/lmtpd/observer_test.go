package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// testClock is a time that moves when it is told to.
type testClock struct{ now time.Time }

func (c *testClock) time() time.Time { return c.now }

func newTestClock() *testClock {
	return &testClock{time.Date(2024, 3, 1, 10, 0, 0, 0, time.UTC)}
}

var (
	goodOutcome = delivery.Outcome{
		Session: 7, ID: "abc-1", QueueID: "4XyZ", From: "ann@example.net", To: "bob@example.org", Mailbox: "bob",
		Transport: "maildir", Size: 1 << 20, Reply: protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 0, 0}},
		Lookup: time.Millisecond, Write: 2 * time.Millisecond, Sync: 3 * time.Millisecond,
	}
	deferredOutcome = delivery.Outcome{
		ID: "abc-2", QueueID: "4XyZ", From: "ann@example.net", To: "eve@example.org", Mailbox: "eve", Transport: "maildir",
		Reply: protocol.Reply{Code: 452, Enhanced: protocol.Enhanced{4, 2, 2}, Text: "Mailbox is full"},
		Err:   fmt.Errorf("maildir: write: %w", syscall.EDQUOT), Sync: time.Second,
	}
	refusedOutcome = delivery.Outcome{
		From: "ann@example.net", To: "no\x1b[2J@example.org",
		Reply: protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 1, 1}, Text: "User unknown"}, Err: userdb.ErrNoSuchUser,
	}
)

// askable starts the sockets of an observer in a directory of the test.
func askable(t *testing.T, o *observer) (dir string) {
	t.Helper()
	dir = t.TempDir()
	c := loadText(t, fmt.Sprintf("[metrics]\naddress = 'unix:%s/metrics.sock'\n[status]\nsocket = '%s/status.sock'\n", dir, dir))
	log := newLogger(io.Discard, c.Log, false)
	e := &endpoints{log: log, observer: o}
	if err := e.apply(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return dir
}

func scrape(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestMetrics(t *testing.T) {
	o := newObserver(newTestClock().time)
	users, databases := o.observe(userdb.Chain{{Database: userdb.Any{}}})
	o.loaded("/etc/lmtpd/lmtpd.toml", []string{"lmtp unix:/run/lmtpd/lmtp.sock"}, databases)
	if _, err := users.Lookup(t.Context(), userdb.Address{Local: "bob", Domain: "example.org"}); err != nil {
		t.Fatal(err)
	}
	if _, err := users.Lookup(t.Context(), userdb.Address{Local: "../bob"}); err == nil {
		t.Fatal("found")
	}
	o.outcome(goodOutcome)
	twice := goodOutcome
	twice.Duplicate = true
	o.outcome(twice)
	again := goodOutcome
	again.Again, again.Stale = true, 3
	o.outcome(again)
	o.outcome(deferredOutcome)
	o.outcome(refusedOutcome)
	o.refused(errors.New("line 3"))
	o.metrics.noticed("mail", nil)
	o.metrics.noticed("mail", errors.New("full"))

	code, text := scrape(t, filepath.Join(askable(t, o), "metrics.sock"), "/metrics")
	if code != 200 {
		t.Fatalf("%d: %s", code, text)
	}
	for _, want := range []string{
		`lmtpd_recipients_total{outcome="delivered",transport="maildir"} 3`,
		`lmtpd_recipients_total{outcome="deferred",transport="maildir"} 1`,
		`lmtpd_recipients_total{outcome="refused",transport="none"} 1`,
		`lmtpd_delivered_bytes_total 1.048576e+06`,
		`lmtpd_duplicates_suppressed_total{kind="recipient"} 1`,
		`lmtpd_stale_files_removed_total 3`,
		`lmtpd_quota_notices_total{by="mail",outcome="sent"} 1`,
		`lmtpd_quota_notices_total{by="mail",outcome="failed"} 1`,
		`lmtpd_quota_notices_total{by="command",outcome="failed"} 0`,
		`lmtpd_duplicates_suppressed_total{kind="message"} 1`,
		`lmtpd_quota_refusals_total 1`,
		`lmtpd_delivery_errors_total{errno="EDQUOT"} 1`,
		`lmtpd_delivery_errors_total{errno="EIO"} 0`,
		`lmtpd_delivery_phase_seconds_count{phase="sync"} 3`,
		`lmtpd_delivery_phase_seconds_bucket{phase="write",le="0.0025"} 3`,
		`lmtpd_lookups_total{database="any",outcome="found"} 1`,
		`lmtpd_lookups_total{database="any",outcome="unknown"} 1`,
		`lmtpd_lookup_seconds_count{database="any"} 2`,
		`lmtpd_sessions{protocol="lmtp"} 0`,
		`lmtpd_config_last_reload_successful 0`,
		`lmtpd_build_info{goversion="go`,
		`process_resident_memory_bytes `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "example") {
		t.Error("an address is in the metrics")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "lmtpd_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// A page in a browser cannot read a loopback port under a name of its own.
func TestEndpointsAreLocal(t *testing.T) {
	h := newObserver(time.Now).metricsHandler()
	for host, want := range map[string]int{"localhost": 200, "127.0.0.1:9825": 200, "[::1]:9825": 200, "evil.example:9825": 403, "192.0.2.1": 403} {
		w := &countingResponse{header: http.Header{}}
		r, _ := http.NewRequest("GET", "http://x/metrics", nil)
		r.Host = host
		h.ServeHTTP(w, r)
		if w.code != want {
			t.Errorf("%s: %d", host, w.code)
		}
	}
}

type countingResponse struct {
	header http.Header
	code   int
}

func (w *countingResponse) Header() http.Header { return w.header }
func (w *countingResponse) WriteHeader(c int)   { w.code = c }
func (w *countingResponse) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = 200
	}
	return len(p), nil
}

// A reload moves the sockets; one that cannot be opened leaves the old one.
func TestEndpointsAcrossReloads(t *testing.T) {
	o := newObserver(time.Now)
	dir := t.TempDir()
	e := &endpoints{log: newLogger(io.Discard, logConfig{Level: logLevelError}, false), observer: o}
	defer e.close()
	apply := func(text string) error { return e.apply(loadText(t, strings.ReplaceAll(text, "DIR", dir))) }
	if err := apply("[status]\nsocket = 'DIR/a'\n"); err != nil {
		t.Fatal(err)
	}
	if err := apply("[status]\nsocket = 'DIR/none/b'\n"); err == nil || !strings.Contains(err.Error(), "test.toml:2: status.socket: the directory "+dir+"/none does not exist") {
		t.Fatal(err)
	}
	if code, _ := scrape(t, dir+"/a", "/status"); code != 200 {
		t.Error(code)
	}
	if code, _ := scrape(t, dir+"/a", "/metrics"); code != 404 {
		t.Error(code)
	}
	if err := apply("[status]\nsocket = 'DIR/b'\nmode = '0606'\n[metrics]\naddress = 'tcp:127.0.0.1:0'\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("unix", dir+"/a"); err == nil {
		t.Error("the old socket is there")
	}
	if code, _ := scrape(t, dir+"/b", "/status"); code != 200 {
		t.Error(code)
	}
	resp, err := http.Get("http://" + e.metrics.socket.listener.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := apply("[status]\nsocket = ''\n"); err != nil || e.status != nil || e.metrics != nil {
		t.Errorf("%v, %v, %v", err, e.status, e.metrics)
	}
}

// What a delivery pays for being observed, of which 2 microseconds are allowed.
func BenchmarkObserver(b *testing.B) {
	o := newObserver(time.Now)
	users, _ := o.observe(userdb.Chain{{Database: userdb.Any{}}})
	b.Run("outcome", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.outcome(goodOutcome)
		}
	})
	b.Run("failure", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.outcome(deferredOutcome)
		}
	})
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		ctx := context.Background()
		for b.Loop() {
			users.Lookup(ctx, userdb.Address{Local: "bob", Domain: "example.org"})
		}
	})
}
