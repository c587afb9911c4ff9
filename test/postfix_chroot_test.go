package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestPostfixChroot: the LMTP client sees nothing but the queue directory, the
// socket is in a directory below it.
func TestPostfixChroot(t *testing.T) {
	t.Parallel()
	needRoot(t, "start Postfix")
	dir, owner := tempDir(t), mailUser(t)
	socketDir := filepath.Join(dir, "queue", "lmtpd")
	mkdir(t, socketDir, owner)
	home := filepath.Join(dir, "mail", "user")
	mkdir(t, home, owner)
	writeFile(t, filepath.Join(dir, "users"), "user@example.org:::::"+home+"::\n")
	startLMTPD(t, agentOptions{
		dir:    dir,
		config: contrib(t, "lmtpd.virtual.toml", "/run/lmtpd", socketDir, "/etc/lmtpd", dir),
		as:     owner,
	})

	virtual := contrib(t, "main.cf.virtual")
	const replaced = "virtual_transport = lmtpd:unix:/run/lmtpd/lmtp.sock\n"
	if strings.Count(virtual, replaced) != 1 {
		t.Fatalf("main.cf.virtual does not have the line %q once", replaced)
	}
	p := startPostfix(t, dir,
		strings.Replace(virtual, replaced, "", 1)+contrib(t, "main.cf.chroot"), contrib(t, "master.cf.chroot"))

	const to = "user@example.org"
	message := []byte(header + "\r\nHello.\r\n")
	id := p.submit(t, "sender@example.net", "", []string{to}, message)
	p.gone(t, id)
	checkStored(t, oneMessage(t, filepath.Join(home, "Maildir")), trace{
		sender: "sender@example.net", recipient: to, helo: "mta.example.org", with: "LMTP",
		then: p.received(id, "ESMTP", to),
	}, message)
	// What `postfix check` says about it: nothing.
	if warned := p.log.find(`postfix/postfix-script\[\d+\]: warning.*`); warned != nil {
		t.Errorf("%s", warned)
	}
}
