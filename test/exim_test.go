package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
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

// retry returns what Exim's retry rules said: the time from the last attempt to
// the next.
func (s *eximSite) retry(t *testing.T, rcpt string) time.Duration {
	t.Helper()
	cmd := s.command("/usr/sbin/exinext", rcpt)
	out, err := cmd.CombinedOutput()
	m := regexp.MustCompile(`(?s)last tried: *(\S+ \S+)\n *next try at: *(\S+ \S+)\n`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	var at [2]time.Time
	for i := range at {
		if at[i], err = time.Parse("02-Jan-2006 15:04:05", string(m[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	return at[1].Sub(at[0])
}

func TestEximVirtual(t *testing.T) {
	t.Parallel()
	s := startEximVirtual(t, []string{"anna", "bob", "carol", "gone", "full", "sender", "detail"})
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
		s.inject(t, sender, "unknown@example.org")
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
		if d := s.retry(t, "gone@example.org"); d != 5*time.Minute {
			t.Errorf("tried again after %v, want 5m", d)
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
	t.Run("full", func(t *testing.T) {
		// lmtpd has mounts of its own: this one is for it alone.
		nsenter := []string{need(t, "nsenter")[0], "-t", fmt.Sprint(s.agent.cmd.Process.Pid), "-m"}
		const fill = `mount -t tmpfs -o size=256k,mode=700,uid=5000 tmpfs "$0" && ! dd if=/dev/zero of="$0/filler" bs=4k 2>&1`
		run(t, "", nsenter[0], append(nsenter[1:], "sh", "-c", fill, s.home("full"))...)
		s.inject(t, sender, "full@example.org")
		m := s.log.await(t, ` (\S+) == full@example\.org .* defer \(-\d+\).* after end of data: 452 4\.3\.1`)
		if d := s.retry(t, "full@example.org"); d != 2*time.Hour {
			t.Errorf("tried again after %v, want 2h", d)
		}
		run(t, "", nsenter[0], append(nsenter[1:], "umount", "-l", s.home("full"))...)
		s.deliver(t, m[1])
		s.gone(t, m[1])
		oneMessage(t, s.maildir("full"))
	})
	t.Run("lmtpd is down", func(t *testing.T) {
		removeMessages(t, s.maildir("bob"))
		s.agent.stop(t)
		s.inject(t, sender, "bob@example.org")
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
	names := []string{"lmtpd-anna", "lmtpd-bob"}
	s := startEximLocal(t, names, eximSnippets{})

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

// TestEximDoesNotPipeline: what contrib/exim/README.md says of the conversation
// that Exim's lmtp transport holds.
func TestEximDoesNotPipeline(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	within := eximWithin(t, dir, newAccounts(t, dir, eximUser))
	sock := filepath.Join(dir, "lmtp.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	reads := make(chan []string, 1)
	go func() { reads <- readsUntilData(l) }()
	x := startExim(t, dir, within, firstAccount,
		"MAIN", contribExim(t, "main"),
		"ACL", "",
		"ROUTERS", contribExim(t, "router.virtual"),
		"TRANSPORTS", contribExim(t, "transport", "/run/lmtpd", dir)+contribExim(t, "transport.verify"),
		"RETRY", contribExim(t, "retry"))
	x.inject(t, "sender@example.net", "anna@example.org", "bob@example.org")
	l.Close()
	got := <-reads
	want := []string{"LHLO mta.example.org\r\n", "MAIL FROM:<sender@example.net>\r\n",
		"RCPT TO:<anna@example.org>\r\n", "RCPT TO:<bob@example.org>\r\n", "DATA\r\n"}
	if len(got) == len(want) { // Exim may turn the recipients around
		slices.Sort(got[2:4])
	}
	if !slices.Equal(got, want) {
		t.Errorf("what Exim sent before it waited:\n%q\nwant\n%q", got, want)
	}
}

// readsUntilData answers one LMTP client that may use every extension, and
// returns what it sent at a time. It closes the connection at DATA.
func readsUntilData(l net.Listener) (reads []string) {
	conn, err := l.Accept()
	if err != nil {
		return nil
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "220 mx.example.org\r\n")
	buf := make([]byte, 4096)
	for range 20 {
		n, err := conn.Read(buf)
		if err != nil {
			return reads
		}
		reads = append(reads, string(buf[:n]))
		switch {
		case strings.HasPrefix(reads[len(reads)-1], "LHLO"):
			io.WriteString(conn, "250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n")
		case strings.HasSuffix(reads[len(reads)-1], "DATA\r\n"):
			return reads
		default:
			io.WriteString(conn, "250 OK\r\n")
		}
	}
	return reads
}
