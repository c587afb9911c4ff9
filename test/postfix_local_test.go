package test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPostfixLocal: contrib/postfix for login accounts. local(8) hands mail on
// by mailbox_transport, and each file belongs to its user.
func TestPostfixLocal(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	names := []string{"lmtpd-anna", "lmtpd-bob"}
	acc := newAccounts(t, dir, names...)
	run := filepath.Join(dir, "run")
	mkdir(t, run, mailUser(t))
	a := startLMTPD(t, agentOptions{
		dir:    dir,
		config: contrib(t, "lmtpd.local.toml", "/run/lmtpd", run),
		as:     mailUser(t),
		within: acc.capable(t),
	})
	p := startPostfix(t, dir, contrib(t, "main.cf.local", "/run/lmtpd", run), contrib(t, "master.cf"), acc.within...)

	message := []byte(header + "\r\nHello.\r\n.\r\n")
	const sender = "sender@example.net"
	to := []string{"lmtpd-anna@example.org", "lmtpd-bob+detail@localhost"}
	id := p.submit(t, sender, "", to, message)
	p.gone(t, id)
	for i, name := range names {
		home := acc.home(name)
		checkStored(t, oneMessage(t, filepath.Join(home, "Maildir")), trace{
			sender: sender, recipient: to[i], helo: "mta.example.org", with: "LMTP",
			then: p.received(id, "ESMTP", to...),
		}, message)
		checkOwner(t, home, firstAccount+uint32(i))
	}

	// Postfix knows the accounts itself and refuses others at once.
	c := dial(t, p.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	if r := c.cmd(t, "RCPT TO:<lmtpd-carol@example.org>"); !strings.HasPrefix(r, "550 5.1.1 ") {
		t.Errorf("unknown recipient: %q", r)
	}
	// root is an account of the machine, but lmtpd never becomes root.
	c.expect(t, "250", "RCPT TO:<root@example.org>")
	c.expect(t, "354", "DATA")
	c.body(t, message)
	id = queueID(t, c.reply(t))
	d := p.log.await(t, ": "+id+`: to=<root@example\.org>.* relay=.*lmtp\.sock\], .*status=(\w+)`)
	if d[1] != "bounced" {
		t.Errorf("mail to root: %s", d[0])
	}
	a.stop(t)
}

// checkOwner checks that all below dir belongs to one uid and gid.
func checkOwner(t *testing.T, dir string, id uint32) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != id || s.Gid != id {
			t.Errorf("%s belongs to %d:%d, want %d", path, s.Uid, s.Gid, id)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
