package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

const (
	rulesFile     = "../contrib/prometheus/lmtpd.rules.yml"
	dashboardFile = "../contrib/grafana/lmtpd.json"
)

// startObservedSite is a daemon that has delivered one message and refused one
// recipient, with the sockets that operators ask.
func startObservedSite(t *testing.T) (dir string, a *agent) {
	t.Helper()
	dir = tempDir(t)
	home := filepath.Join(dir, "mail", "user")
	mkdir(t, home, nil)
	writeFile(t, filepath.Join(dir, "users"), fmt.Sprintf("user@example.org:::::%s::\n", home))
	a = startLMTPD(t, agentOptions{dir: dir, config: fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
address = "unix:%[1]s/lmtp.sock"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
[metrics]
address = "unix:%[1]s/metrics.sock"
[status]
socket = "%[1]s/status.sock"
`, dir)})
	c := dial(t, filepath.Join(dir, "lmtp.sock"))
	c.expect(t, "250", "LHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "550", "RCPT TO:<nobody@example.org>")
	c.expect(t, "250", "RCPT TO:<user@example.org>")
	c.expect(t, "354", "DATA")
	c.write(t, []byte("Received: from a by mta.example.org (Postfix) with ESMTP id 4XyZ1b2C3dz; date\r\nMessage-ID: <m@example.net>\r\n\r\nx\r\n.\r\n"))
	if r := c.reply(t); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	return dir, a
}

// metricsOf scrapes a daemon as Prometheus does.
func metricsOf(t *testing.T, socket string) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	resp, err := client.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(text)
}

// TestMetrics: what the daemon exports passes Prometheus's own check, and every
// metric that the rules and the dashboard name is in it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	dir, _ := startObservedSite(t)
	text := metricsOf(t, filepath.Join(dir, "metrics.sock"))
	for _, want := range []string{
		`lmtpd_recipients_total{outcome="delivered",transport="maildir"} 1`,
		`lmtpd_recipients_total{outcome="refused",transport="none"} 1`,
		`lmtpd_lookups_total{database="passwd-file ` + dir + `/users",outcome="found"} 1`,
		`lmtpd_lookups_total{database="passwd-file ` + dir + `/users",outcome="unknown"} 1`,
		`lmtpd_sessions{protocol="lmtp"} 1`,
		`lmtpd_sessions_total{protocol="lmtp"} 1`,
		`lmtpd_delivery_phase_seconds_count{phase="sync"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	exported := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-zA-Z_:]+)[{ ]`).FindAllStringSubmatch(text, -1) {
		exported[m[1]] = true
	}
	rules := readFile(t, rulesFile)
	recorded := map[string]bool{"up": true}
	for _, m := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(rules, -1) {
		recorded[m[1]] = true
	}
	named := regexp.MustCompile(`\b(?:job:)?(?:lmtpd|process|go)_[a-z0-9_:]+`)
	queries := strings.Join(dashboardQueries(t), "\n")
	for _, m := range regexp.MustCompile(`(?m)^ *(?:- )?(?:expr|record): .*|^ {10,}.*`).FindAllString(rules, -1) {
		queries += "\n" + m
	}
	if n := len(named.FindAllString(queries, -1)); n < 40 {
		t.Errorf("only %d metrics found in rules and dashboard", n)
	}
	for _, name := range named.FindAllString(queries, -1) {
		if !exported[name] && !recorded[name] {
			t.Errorf("%s is in the rules or the dashboard, and is not exported", name)
		}
	}
	promtool := need(t, "promtool")[0]
	// Linting wants a help for everything and says nothing otherwise.
	if out := run(t, text, promtool, "check", "metrics"); out != "" {
		t.Errorf("promtool: %s", out)
	}
}

// dashboardQueries are the queries of all panels.
func dashboardQueries(t *testing.T) (all []string) {
	t.Helper()
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 || len(p.Targets) == 0 {
			t.Errorf("panel %+v", p)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all = append(all, target.Expr)
		}
	}
	return all
}

// TestRules: Prometheus takes the rules, each alert comes when it should, and the
// queries of the dashboard are queries.
func TestRules(t *testing.T) {
	t.Parallel()
	promtool := need(t, "promtool")[0]
	run(t, "", promtool, "check", "rules", rulesFile)

	dir := tempDir(t)
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	tests := filepath.Join(dir, "rules_test.yml")
	writeFile(t, tests, strings.ReplaceAll(readFile(t, "testdata/rules_test.yml"), "RULES", rules))
	run(t, "", promtool, "test", "rules", tests)

	var b strings.Builder
	b.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, q := range dashboardQueries(t) {
		q = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(q)
		fmt.Fprintf(&b, "      - record: q%d\n        expr: %q\n", i, q)
	}
	queries := filepath.Join(dir, "dashboard.yml")
	writeFile(t, queries, b.String())
	run(t, "", promtool, "check", "rules", queries)
}

// TestStatus: lmtpd status of a daemon that runs, and of one that has ended.
func TestStatus(t *testing.T) {
	t.Parallel()
	dir, a := startObservedSite(t)
	config := filepath.Join(dir, "lmtpd.toml")
	var report struct {
		PID      int
		Sessions struct{ Open, Total int }
		Totals   struct{ Delivered, Deferred, Refused int }
	}
	out := run(t, "", program, "status", "-c", config, "--json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if report.PID != a.cmd.Process.Pid || report.Sessions.Open != 1 || report.Totals.Delivered != 1 || report.Totals.Refused != 1 {
		t.Errorf("%s", out)
	}
	screen := run(t, "", program, "status", "-c", config)
	if !strings.Contains(screen, "nobody@example.org  550 5.1.1") {
		t.Errorf("%s", screen)
	}
	a.stop(t)
	gone := exec.Command(program, "status", "-c", config)
	text, _ := gone.CombinedOutput()
	if status := gone.ProcessState.ExitCode(); status != 69 || !strings.HasPrefix(string(text), "lmtpd: no daemon is running here: ") {
		t.Errorf("%d: %s", status, text)
	}
}

// TestQueueID: the log has the client's name for a message: what it says with
// XFORWARD, of refused recipients too, else that of the topmost Received field.
func TestQueueID(t *testing.T) {
	t.Parallel()
	dir, a := startObservedSite(t)
	a.stderr.await(t, `msg=recipient session=\d+ id=\S+ queue_id=4XyZ1b2C3dz message_id=m@example.net from=sender@example.net to=user@example.org orig_to="" mailbox=user@example.org `)
	c := dial(t, filepath.Join(dir, "lmtp.sock"))
	if r := c.cmd(t, "LHLO client.example.net"); !strings.Contains(r, "XFORWARD") {
		t.Errorf("LHLO: %s", r)
	}
	c.expect(t, "250", "XFORWARD IDENT=QUEUE1 NAME=[UNAVAILABLE]")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "550", "RCPT TO:<nobody@example.org>")
	c.expect(t, "250", "RCPT TO:<user@example.org>")
	c.expect(t, "354", "DATA")
	c.write(t, []byte("Received: by mta.example.org id OTHER; date\r\n\r\nx\r\n.\r\n"))
	if r := c.reply(t); !strings.HasPrefix(r, "250 ") {
		t.Fatalf("reply %q", r)
	}
	a.stderr.await(t, `msg=recipient .* id="" queue_id=QUEUE1 .* to=nobody@example.org .* status=refused code=550`)
	a.stderr.await(t, `msg=recipient .* queue_id=QUEUE1 .* to=user@example.org .* status=delivered code=250`)
}

// TestTrace: the dialog of one recipient's sessions, from their beginning, without
// the message.
func TestTrace(t *testing.T) {
	t.Parallel()
	dir, _ := startObservedSite(t)
	cmd := exec.Command(program, "trace", "-c", filepath.Join(dir, "lmtpd.toml"), "--recipient", "USER@example.org")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	watch := start(t, "lmtpd trace", cmd)
	watch.stderr.await(t, `watching; Ctrl-C ends it`)
	for _, to := range []string{"nobody@example.org", "user@example.org"} {
		c := dial(t, filepath.Join(dir, "lmtp.sock"))
		c.cmd(t, "LHLO client.example.net")
		c.cmd(t, "MAIL FROM:<sender@example.net>")
		if r := c.cmd(t, "RCPT TO:<"+to+">"); strings.HasPrefix(r, "250") {
			c.expect(t, "354", "DATA")
			c.write(t, []byte("Subject: secret\r\n\r\nx\r\n.\r\n"))
			c.reply(t)
		}
		c.expect(t, "221", "QUIT")
	}
	watch.stdout.await(t, `\d\d:\d\d:\d\d\.\d{6} \d+ > 221 .*`)
	for _, line := range []string{`> 220 mx\.example\.org LMTP`, `< LHLO client\.example\.net`, `< RCPT TO:<user@example\.org>`, `> 354 `, `> 250 2\.0\.0 `, `< QUIT`} {
		if len(watch.stdout.find(`(?m)^\S+ \d+ `+line)) != 1 {
			t.Errorf("no %s in\n%s", line, watch.stdout)
		}
	}
	if out := watch.stdout.String(); strings.Contains(out, "secret") || strings.Contains(out, "nobody") {
		t.Errorf("shown:\n%s", out)
	}
	watch.signal(t, syscall.SIGINT)
	if status := watch.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// TestExplainHidden: homes that the service of a running daemon hides from it, as
// ProtectHome= does, are found by the view of the daemon; this test sees them.
func TestExplainHidden(t *testing.T) {
	t.Parallel()
	needRoot(t, "mount")
	unshare := need(t, "unshare")[0]
	dir := tempDir(t)
	home := filepath.Join(dir, "mail", "user")
	owner := mailUser(t)
	mkdir(t, home, owner)
	writeFile(t, filepath.Join(dir, "users"), fmt.Sprintf("user@example.org::%d:%d::%s::\n", owner.Uid, owner.Gid, home))
	a := startLMTPD(t, agentOptions{
		dir:    dir,
		within: []string{unshare, "-m", "--propagation", "private", "sh", "-ec", `mount -t tmpfs tmpfs "$0"; exec "$@"`, filepath.Dir(home)},
		config: fmt.Sprintf(`
[[listen]]
address = "unix:%[1]s/lmtp.sock"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
minimum_uid = 1
`, dir)})
	explain := func() (int, string) {
		cmd := exec.Command(program, "explain", "-c", filepath.Join(dir, "lmtpd.toml"), "user@example.org")
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	hidden := fmt.Sprintf("  obstacle  mailbox root is not there for the running lmtpd (process %d): %s is hidden from it (ProtectHome=", a.cmd.Process.Pid, home)
	if status, out := explain(); status != 75 || !strings.Contains(out, hidden) || !strings.Contains(out, "  reply     451 4.2.0 ") {
		t.Errorf("%d: no %s in\n%s", status, hidden, out)
	}
	c := dial(t, filepath.Join(dir, "lmtp.sock"))
	c.expect(t, "250", "LHLO client.example.net")
	if r := c.send(t, "sender@example.net", "", []string{"user@example.org"}, []byte("\r\nx\r\n"), 1)[0]; !strings.HasPrefix(r, "451 4.2.0 ") {
		t.Errorf("the daemon says %q", r)
	}
	a.stop(t)
	if status, out := explain(); status != 0 || !strings.Contains(out, "  reply     250 2.0.0 ") {
		t.Errorf("without the daemon: %d\n%s", status, out)
	}
}
