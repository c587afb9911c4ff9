package main

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery"
)

// What the configuration says of modes and header fields is what a mailbox has.
func TestModesAndHeaders(t *testing.T) {
	dir, config := explainSite(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, config, string(text)+"[mailbox]\nfile_mode = '0640'\ndirectory_mode = '0750'\n"+
		"[delivery]\nheaders = ['Received', 'Envelope-To']\nloop_check = false\n")
	c, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := buildAgent(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// Bob has no Maildir yet.
	outcomes, err := agent.Submit(t.Context(), delivery.Envelope{Rcpts: []string{"bob@example.org"}}, strings.NewReader("Subject: x\n\n"))
	if err != nil || !outcomes[0].Reply.OK() {
		t.Fatal(outcomes, err)
	}
	file := outcomes[0].File
	maildir := filepath.Join(dir, "home/bob/Maildir")
	for path, want := range map[string]fs.FileMode{file: 0o640, filepath.Join(maildir, "new"): 0o750, maildir: 0o750} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", path, info, err, want)
		}
	}
	message, err := os.ReadFile(file)
	if err != nil || !strings.HasPrefix(string(message), "Envelope-To: bob@example.org\nReceived: ") {
		t.Errorf("%q, %v", message, err)
	}
}

// A database of type any gives each address of its domains a mailbox, and no other.
func TestAnyUser(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lmtpd.toml")
	writeTestFile(t, path, strings.ReplaceAll("state_directory = 'DIR'\n[[userdb]]\ntype = 'any'\ndomains = ['example.org']\n[mailbox]\npath = 'DIR/%d/%n'\n", "DIR", dir))
	c, agent, err := loadAgent(path, func(*config) *slog.Logger { return slog.New(slog.DiscardHandler) })
	if err != nil {
		t.Fatal(err)
	}
	if errs := c.checkEnvironment(nil); errs.fatal() {
		t.Error(errs)
	}
	outcomes, err := agent.Submit(t.Context(), delivery.Envelope{Rcpts: []string{"bob+x@example.org", "bob@example.net", ".ssh@example.org"}}, strings.NewReader("Subject: x\n\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{250, 550, 501} {
		if outcomes[i].Reply.Code != want {
			t.Errorf("%s: %v, want %d", outcomes[i].To, outcomes[i].Reply, want)
		}
	}
	if !strings.HasPrefix(outcomes[0].File, filepath.Join(dir, "example.org/bob/new/")) {
		t.Errorf("delivered to %s", outcomes[0].File)
	}
}
