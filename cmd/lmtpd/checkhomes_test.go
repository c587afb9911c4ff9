package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Homes that the running writer cannot see are warnings of check, one for each
// directory of homes.
func TestCheckHomes(t *testing.T) {
	dir := t.TempDir()
	users, file, proc := filepath.Join(dir, "users"), filepath.Join(dir, "lmtpd.toml"), filepath.Join(dir, "proc")
	for _, home := range []string{"data/ann", "data/bob", "seen/cid"} {
		if err := os.MkdirAll(filepath.Join(dir, home), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeTestFile(t, users, fmt.Sprintf("ann::1000:1000::%[1]s/data/ann::\nbob@example.org::1001:1001::%[1]s/data/bob::\n"+
		"cid::1002:1002::%[1]s/seen/cid::\ndan::1003:1003::%[1]s/later/dan::\n", dir))
	writeTestFile(t, file, fmt.Sprintf("[[userdb]]\ntype = \"passwd-file\"\npath = %q\n[writer]\nsocket = \"/run/lmtpd/writer.sock\"\n", users))
	c, agent, err := loadAgent(file, func(*config) *slog.Logger { return slog.New(slog.DiscardHandler) })
	if err != nil {
		t.Fatal(err)
	}
	view := newDaemonView(c, file, proc)
	if got := c.checkHomes(agent, view); len(got) != 0 {
		t.Errorf("nothing runs: %v", got)
	}
	writeTestFile(t, filepath.Join(proc, "3/cmdline"), "/usr/bin/lmtpd\x00writer\x00-c\x00"+file+"\x00")
	seen := filepath.Join(proc, "3/root", dir, "seen")
	if err := os.MkdirAll(filepath.Dir(seen), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "seen"), seen); err != nil {
		t.Fatal(err)
	}
	got := c.checkHomes(agent, view)
	if len(got) != 1 || got.fatal() {
		t.Fatalf("got %v", got)
	}
	for _, want := range []string{"mailbox.path: ", " is hidden from it (ProtectHome=", "; see systemctl cat lmtpd-writer",
		"systemctl edit lmtpd-writer, [Service] ReadWritePaths=" + dir + "/data,"} {
		if !strings.Contains(got[0].Error(), want) {
			t.Errorf("no %q in %v", want, got[0])
		}
	}
}
