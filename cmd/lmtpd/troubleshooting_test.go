package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery"
)

// The log lines that lmtpd-troubleshooting(7) shows are the ones that the program
// writes.
func TestTroubleshootingShowsRealLines(t *testing.T) {
	page := strings.Join(strings.Fields(readPage(t, "lmtpd-troubleshooting.7")), " ")
	shown := func(line string) {
		t.Helper()
		if !strings.Contains(page, line) {
			t.Errorf("lmtpd-troubleshooting(7) does not show\n%s", line)
		}
	}

	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := os.Geteuid() == 0
	uid, gid := 1001, 1001
	if !root {
		uid, gid = os.Getuid(), os.Getgid()
	}
	writeTestFile(t, filepath.Join(dir, "users"), fmt.Sprintf("bob@example.org::%d:%d::%s/home/bob::\n", uid, gid, dir))
	config := filepath.Join(dir, "lmtpd.toml")
	writeTestFile(t, config, fmt.Sprintf("state_directory = '%[1]s'\n[[userdb]]\ntype = 'passwd-file'\npath = '%[1]s/users'\nminimum_uid = 1\ndomains = ['example.org']\n", dir))
	c, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	// last is how the log line of a message to one recipient ends.
	last := func(to, message string) string {
		t.Helper()
		var out bytes.Buffer
		agent, err := buildAgent(c, slog.New(newHandler(&out, c.Log, false)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Submit(t.Context(), delivery.Envelope{Rcpts: []string{to}}, strings.NewReader(message)); err != nil {
			t.Fatal(err)
		}
		_, line, ok := strings.Cut(strings.TrimSpace(out.String()), " error=")
		if !ok {
			t.Fatalf("no error in %s", out.String())
		}
		return strings.NewReplacer(dir, "", fmt.Sprintf("uid %d, gid %d", uid, gid), "uid 1001, gid 1001").Replace("error=" + line)
	}
	shown(last("bob@mx.example.org", ""))
	shown(last("bob@example.org", ""))
	if err := os.MkdirAll(filepath.Join(dir, "home/bob"), 0o755); err != nil {
		t.Fatal(err)
	}
	if root {
		if err := os.Chmod(filepath.Join(dir, "home"), 0o755); err != nil {
			t.Fatal(err)
		}
		shown(last("bob@example.org", ""))
	}
	shown(last("bob@example.org", "Delivered-To: bob@example.org\n\n"))

	_, err = parseConfig("/etc/lmtpd/lmtpd.toml", []byte(strings.Repeat("\n", 10)+"[limits]\nsesions = 1\n"))
	shown(fmt.Sprintf("error=%q", err))
	shown(notRunning(defaultStatusSocket, os.ErrPermission).Error()[len(fmt.Sprintf("uid %d ", os.Geteuid())):])
}
