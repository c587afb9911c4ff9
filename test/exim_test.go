package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// transactions returns for each transaction of lmtpd that carried the message
// how many recipients it had.
func (s *eximSite) transactions(t *testing.T, id string, to ...string) map[string]int {
	t.Helper()
	count := make(map[string]int)
	for _, rcpt := range to {
		m := s.agent.stderr.await(t, ` session=(\d+) id=(\S+) queue_id=`+id+` .* to="?`+regexp.QuoteMeta(rcpt)+`"? `)
		count[m[1]+" "+m[2]]++
	}
	return count
}

func TestEximVirtual(t *testing.T) {
	t.Parallel()
	s := startEximVirtual(t, []string{"anna", "bob", "carol", "gone", "sender", "detail"})
	const sender = "sender@example.org"
	message := []byte(header + "\r\nGrüße.\r\n.\r\n..x\r\n")

	t.Run("one transaction", func(t *testing.T) {
		to := []string{"anna@example.org", "bob@example.org", "carol@example.org"}
		id := s.submit(t, sender, to, message)
		s.gone(t, id)
		for i, rcpt := range to {
			user, _, _ := strings.Cut(rcpt, "@")
			h := s.trace(id, sender, append([]string{to[i]}, to...)...)
			h.then = s.received(id, to...)
			checkStored(t, oneMessage(t, s.maildir(user)), h, message)
		}
		if n := s.transactions(t, id, to...); len(n) != 1 {
			t.Errorf("transactions: %v, want one", n)
		}
	})
	t.Run("detail", func(t *testing.T) {
		const to = "detail+lists@example.org"
		id := s.submit(t, sender, []string{to}, message)
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("detail")), s.trace(id, sender, to), message)
	})
	t.Run("refused at RCPT", func(t *testing.T) {
		c := dial(t, s.addr)
		c.expect(t, "250", "EHLO client.example.net")
		c.expect(t, "250", "MAIL FROM:<sender@example.net>")
		if r := c.cmd(t, "RCPT TO:<unknown@example.org>"); r != "550 5.1.1 No such user here" {
			t.Errorf("unknown recipient: %q", r)
		}
		c.expect(t, "250", "RCPT TO:<anna@example.org>")
	})
	t.Run("bounce", func(t *testing.T) {
		// What a program of the machine submits passes no ACL.
		cmd := s.command("/usr/sbin/exim4", "-odf", "-f", sender, "unknown@example.org")
		cmd.Stdin = strings.NewReader(header + "\r\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		s.log.await(t, `\*\* unknown@example\.org .*550 5\.1\.1`)
		bounce := s.log.await(t, ` (\S+) <= <> R=`)[1]
		s.gone(t, bounce)
		m := oneMessage(t, s.maildir("sender"))
		for _, want := range []string{"Return-Path: <>\n", "unknown@example.org", "550 5.1.1"} {
			if !bytes.Contains(m.content, []byte(want)) {
				t.Errorf("no %q in the bounce\n%s", want, m.content)
			}
		}
	})
	t.Run("deferred", func(t *testing.T) {
		removeMessages(t, s.maildir("anna"))
		away := s.home("gone") + ".away"
		if err := os.Rename(s.home("gone"), away); err != nil {
			t.Fatal(err)
		}
		to := []string{"anna@example.org", "gone@example.org"}
		id := s.submit(t, sender, to, message)
		s.log.await(t, id+` => anna`)
		s.log.await(t, id+` == gone@example\.org .* defer \(-\d+\).*4[0-9][0-9] 4\.`)
		if n := s.transactions(t, id, to...); len(n) != 1 {
			t.Errorf("transactions: %v, want one", n)
		}
		if err := os.Rename(away, s.home("gone")); err != nil {
			t.Fatal(err)
		}
		s.deliver(t, id)
		s.gone(t, id)
		for i, user := range []string{"anna", "gone"} { // and no second copy
			h := s.trace(id, sender, to[i])
			h.then = s.received(id, to...)
			checkStored(t, oneMessage(t, s.maildir(user)), h, message)
		}
	})
	t.Run("lmtpd is down", func(t *testing.T) {
		removeMessages(t, s.maildir("bob"))
		s.agent.stop(t)
		cmd := s.command("/usr/sbin/exim4", "-odf", "-f", sender, "bob@example.org")
		cmd.Stdin = strings.NewReader(header + "\r\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		s.log.await(t, ` == bob@example\.org R=lmtpd_virtual T=lmtpd defer .*Failed to connect to socket`)
		// The callout defers too, where its answer is not known from before.
		c := dial(t, s.addr)
		c.expect(t, "250", "EHLO client.example.net")
		c.expect(t, "250", "MAIL FROM:<sender@example.net>")
		c.expect(t, "451", "RCPT TO:<new@example.org>")
		c.expect(t, "250", "RCPT TO:<anna@example.org>")
	})
}

// TestEximOneAtATime: batch_max = 1, as contrib/exim/README.md says.
func TestEximOneAtATime(t *testing.T) {
	t.Parallel()
	s := startEximVirtual(t, []string{"anna", "bob"}, "batch_max = 100", "batch_max = 1")
	to := []string{"anna@example.org", "bob@example.org"}
	id := s.submit(t, "sender@example.net", to, []byte(header+"\r\n"))
	s.gone(t, id)
	for _, user := range []string{"anna", "bob"} {
		oneMessage(t, s.maildir(user))
	}
	if n := s.transactions(t, id, to...); len(n) != 2 {
		t.Errorf("transactions: %v, want two", n)
	}
}

// TestEximLocal: contrib/exim for login accounts.
func TestEximLocal(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	names := []string{"lmtpd-anna", "lmtpd-bob"}
	acc := newAccounts(t, dir, append(names, eximUser)...)
	id := firstAccount + len(names)
	s := &eximSite{dir: dir, home: acc.home}
	within := eximWithin(t, dir, acc)
	run := filepath.Join(dir, "run")
	mkdir(t, run, nil)
	if err := os.Chown(run, 5000, 5000); err != nil {
		t.Fatal(err)
	}
	s.agent = startLMTPD(t, agentOptions{
		dir: dir, as: &syscall.Credential{Uid: 5000, Gid: 5000},
		config: contribExim(t, "lmtpd.local.toml", "/run/lmtpd", run),
		within: append(within[:len(within):len(within)], "setpriv", "--reuid=5000", "--regid=5000", fmt.Sprint("--groups=", id),
			"--inh-caps=-all,+setuid,+setgid", "--ambient-caps=-all,+setuid,+setgid",
			"--bounding-set=-all,+setuid,+setgid", "--no-new-privs"),
	})
	s.exim = startExim(t, dir, within, id,
		"MAIN", contribExim(t, "main"),
		"ACL", "",
		"ROUTERS", contribExim(t, "router.local"),
		"TRANSPORTS", contribExim(t, "transport", "/run/lmtpd", run),
		"RETRY", contribExim(t, "retry"))

	owner := &syscall.Credential{Uid: firstAccount + 1, Gid: firstAccount + 1}
	makeMaildir(t, s.maildir(names[1]), owner)
	makeMaildir(t, s.maildir(names[1])+"/.detail", owner)
	message := []byte(header + "\r\nHello.\r\n")
	const sender = "sender@example.net"
	to := []string{"lmtpd-anna@example.org", "lmtpd-bob+detail@example.org"}
	queue := s.submit(t, sender, to, message)
	s.gone(t, queue)
	for i, where := range []string{s.maildir(names[0]), s.maildir(names[1]) + "/.detail"} {
		h := s.trace(queue, sender, to[i])
		h.then = s.received(queue, to...)
		checkStored(t, oneMessage(t, where), h, message)
		checkOwner(t, s.home(names[i]), firstAccount+uint32(i))
	}
	if n := s.transactions(t, queue, to...); len(n) != 1 {
		t.Errorf("transactions: %v, want one", n)
	}

	// Exim knows the accounts itself and refuses others at once.
	c := dial(t, s.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "550", "RCPT TO:<lmtpd-carol@example.org>")
	s.agent.stop(t)
}
