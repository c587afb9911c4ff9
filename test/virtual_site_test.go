package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// virtualSite is Postfix and lmtpd as contrib/postfix describes them for
// virtual users: one mail user owns everything.
type virtualSite struct {
	*postfix
	agent *agent
	dir   string
	owner *syscall.Credential
	sock  string
}

func (s *virtualSite) home(user string) string { return filepath.Join(s.dir, "mail", user) }

func (s *virtualSite) maildir(user string) string { return filepath.Join(s.home(user), "Maildir") }

// trace is the header of a message that came through Postfix from
// client.example.net to these recipients; header is that of the first.
func (s *virtualSite) trace(id, from string, to ...string) trace {
	with, esmtp := "LMTP", "ESMTP"
	if strings.ContainsFunc(from+to[0], func(r rune) bool { return r > 127 }) {
		with, esmtp = "UTF8LMTP", "UTF8SMTP"
	}
	return trace{sender: from, recipient: to[0], helo: "mta.example.org", with: with, then: s.received(id, esmtp, to...)}
}

// startVirtualSite: users are local parts of example.org, main is put after
// contrib's main.cf.
func startVirtualSite(t *testing.T, users []string, main string) *virtualSite {
	t.Helper()
	return startVirtualSiteWith(t, users, contrib(t, "main.cf.virtual", "/run/lmtpd", "RUN")+main, contrib(t, "master.cf"))
}

// startVirtualSiteWith takes all settings; RUN stands for the socket's directory.
func startVirtualSiteWith(t *testing.T, users []string, main, master string) *virtualSite {
	t.Helper()
	needRoot(t, "start Postfix")
	need(t, "postfix")
	s := &virtualSite{dir: tempDir(t), owner: mailUser(t)}
	run := filepath.Join(s.dir, "run")
	s.sock = filepath.Join(run, "lmtp.sock")
	mkdir(t, run, s.owner)
	var table strings.Builder
	for _, u := range users {
		mkdir(t, s.home(u), s.owner)
		fmt.Fprintf(&table, "%s@example.org:::::%s::\n", u, s.home(u))
	}
	writeFile(t, filepath.Join(s.dir, "users"), table.String())
	s.agent = startLMTPD(t, agentOptions{
		dir:    s.dir,
		config: contrib(t, "lmtpd.virtual.toml", "/run/lmtpd", run, "/etc/lmtpd", s.dir),
		as:     s.owner,
	})
	s.postfix = startPostfix(t, s.dir, strings.ReplaceAll(main, "RUN", run), master)
	return s
}
