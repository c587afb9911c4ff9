package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/userdb"
)

const hello = "Subject: x\r\n\r\nhello\r\n"

// start sends a transaction up to DATA and gives the replies to RCPT.
func transaction(t testing.TB, c *protocoltest.Client, from string, rcpts ...string) (replies []string) {
	t.Helper()
	c.Cmd("250", "MAIL FROM:<%s>", from)
	for _, r := range rcpts {
		c.Raw("RCPT TO:<" + r + ">\r\n")
		replies = append(replies, c.Reply())
	}
	return replies
}

// TestMixedOutcomes: each recipient has its own reply, in the order of RCPT.
func TestMixedOutcomes(t *testing.T) {
	s := newSite(t, "ok", "full", "denied", "odd", "gone", "ok2")
	s.writer.Before = func(op, path string) error {
		switch {
		case op == maildir.OpWrite && strings.Contains(path, "/full/"):
			return syscall.ENOSPC
		case op == maildir.OpOpen && strings.Contains(path, "/denied/"):
			return syscall.EACCES
		case op == maildir.OpSync && strings.Contains(path, "/odd/"):
			return syscall.EIO
		}
		return nil
	}
	if err := os.Remove(s.home("gone")); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	c := s.client(t)
	rcpts := []string{"full@example.org", "ok@example.org", "denied@example.org", "odd@example.org", "OK@example.org", "gone@example.org", "ok2@example.org"}
	got := c.Send("ann@example.org", rcpts, hello, len(rcpts))
	wantReplies(t, got, "452 4.3.1 Insufficient system storage", "250 2.0.0 OK ", "451 4.3.0 Mailbox cannot be written",
		"451 4.3.0 Temporary internal failure", "250 2.0.0 OK ", "451 4.2.0 Mailbox is not available", "250 2.0.0 OK ")
	c.Cmd("221", "QUIT")
	for _, r := range got {
		if strings.Contains(r, s.dir) {
			t.Errorf("a reply names a path: %q", r)
		}
	}
	if got[1] != got[4] {
		t.Errorf("a repeated recipient got %q and %q", got[1], got[4])
	}
	for _, u := range []string{"ok", "ok2"} {
		readOne(t, s.maildir(u))
	}
	for _, u := range []string{"full", "denied", "odd"} {
		if left := files(t, s.home(u)); len(left) > 0 {
			t.Errorf("%s: left %v", u, left)
		}
	}
	log := s.log.String()
	for _, want := range []string{`to=full@example.org `, `status=deferred code=452 enhanced=4.3.1`, "no space left on device", s.home("gone"), "level=WARN", "duplicate=true"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if n := strings.Count(log, "msg=recipient"); n != len(rcpts) {
		t.Errorf("%d log lines for %d recipients", n, len(rcpts))
	}
}

// TestRcptReplies: what RCPT says about addresses, and that nothing comes of those
// that are refused.
func TestRcptReplies(t *testing.T) {
	s := newSite(t, "bob")
	s.users(t, "bob@example.org:::::"+s.home("bob")+"::\n"+
		"off@example.org::::::"+":userdb_disabled=yes\n"+
		"homeless@example.org::::::\n")
	s.agent.Users = s.passwd(t)
	s.start(t)
	long := strings.Repeat("x", 300)
	for _, test := range []struct{ to, want string }{
		{"bob@example.org", "250 2.1.5"},
		{"BOB+detail@Example.ORG", "250 2.1.5"},
		{"who@example.org", "550 5.1.1 User unknown"},
		{"bob@elsewhere.example", "550 5.1.2 No mail for this domain here"},
		{"off@example.org", "550 5.2.1 Mailbox disabled"},
		{"homeless@example.org", "451 4.3.5 Recipient is misconfigured"},
		{"", "501 5.1.3"},
		{"+@example.org", "501 5.1.3 Bad recipient address"},
		{"+++@example.org", "501 5.1.3 Bad recipient address"},
		{"+x@example.org", "550 5.1.1"},
		{"../@example.org", "550 5.1.1"},
		{`"../../etc"@example.org`, "550 5.1.1"},
		{"/@example.org", "550 5.1.1"},
		{"bob@../x", "501 5.1.3"},
		{"bob@/", "501 5.1.3"},
		{"bob@.", "501 5.1.3"},
		{`"a\` + "\x00" + `b"@example.org`, "5"},
		{long + "@example.org", "501 5.1.3"},
		{"bob@" + long + ".org", "501 5.1.3"},
	} {
		c := s.client(t)
		c.Cmd("250", "MAIL FROM:<>")
		c.Raw("RCPT TO:<" + test.to + ">\r\n")
		if got := c.Reply(); !strings.HasPrefix(got, test.want) {
			t.Errorf("%q: %q, want %q", test.to, got, test.want)
		}
		c.Close()
	}
	if left := files(t, s.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestBadAddresses: the same where every address has a mailbox, so that only the
// checks of addresses and paths stand between a sender and the file system.
func TestBadAddresses(t *testing.T) {
	s := newSite(t)
	s.agent.Users = userdb.Any{}
	var err error
	if s.agent.Mailbox, err = ParseLocation(s.dir + "/mail/%d/%n"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	long := strings.Repeat("x", 300)
	c := s.client(t)
	c.Cmd("250", "MAIL FROM:<>")
	for _, to := range []string{
		"../@example.org", `"../../etc"@example.org`, `".."@example.org`, "..@example.org", ".@example.org", `"/"@example.org`,
		"a/b@example.org", "/etc/passwd@example.org", "bob@..", "bob@../..", "bob@/etc", "bob@.hidden", ".hidden@example.org",
		"", "@", "@example.org", `""@example.org`, "+@example.org", long + "@example.org", "bob@" + long, long,
		`"+"@example.org`, "bob@[../x]",
	} {
		c.Cmd("501 5.1.3 ", "RCPT TO:<%s>", to)
	}
	c.Raw("RCPT TO:<a\x00b@example.org>\r\n")
	c.Expect("5")
	c.Cmd("503", "DATA")
	c.Cmd("250", "RSET")
	// The same by the other way in.
	for _, to := range []string{"../@x", "..@x", `"a/b"@x`, "a\x00b@x", "", "@", "+", long, "bob@..", "bob@a/b", "a\r\nb@x"} {
		out, err := s.agent.Submit(context.Background(), Envelope{Rcpts: []string{to}}, strings.NewReader(hello))
		if err != nil || out[0].Reply.Error() != "501 5.1.3 Bad recipient address" {
			t.Errorf("%q: %+v, %v", to, out, err)
		}
	}
	for _, dir := range []string{"mail", "state"} {
		if left := stateEntries(t, filepath.Join(s.dir, dir)); len(left) > 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
	// One that only looks odd has its mailbox, and nowhere else.
	c.Send("", []string{`"a..b ~%n"@example.org`}, hello, 1)
	if got := read(t, filepath.Join(s.dir, "mail/example.org/a..b ~%n")); len(got) != 1 {
		t.Errorf("%d messages, files %v", len(got), files(t, s.dir))
	}
}

// TestManyRecipients: 50 of them, every fifth unknown.
func TestManyRecipients(t *testing.T) {
	var users []string
	for i := range 50 {
		if i%5 != 0 {
			users = append(users, fmt.Sprintf("u%d", i))
		}
	}
	s := newSite(t, users...).start(t)
	c := s.client(t)
	c.Cmd("250", "MAIL FROM:<ann@example.org>")
	var batch strings.Builder
	for i := range 50 {
		fmt.Fprintf(&batch, "RCPT TO:<u%d@example.org>\r\n", i)
	}
	c.Raw(batch.String() + "DATA\r\n")
	for i := range 50 {
		if i%5 == 0 {
			c.Expect("550 5.1.1 User unknown")
		} else {
			c.Expect("250 2.1.5")
		}
	}
	c.Expect("354")
	c.Raw(protocoltest.Stuff(hello))
	for range users {
		c.Expect("250 2.0.0")
	}
	c.Cmd("221", "QUIT")
	for _, u := range users {
		trace{from: "ann@example.org", to: u + "@example.org"}.strip(t, readOne(t, s.maildir(u)))
	}
}

// TestEarlyReplies: while one mailbox is stuck, the replies before it are out and
// the copies after it are on disk.
func TestEarlyReplies(t *testing.T) {
	s := newSite(t, "one", "stuck", "three")
	release := make(chan struct{})
	s.writer.Before = func(op, path string) error {
		if op == maildir.OpSync && strings.Contains(path, "/stuck/") {
			<-release
		}
		return nil
	}
	third := make(chan struct{})
	s.agent.Report = func(o Outcome) {
		if o.To == "three@example.org" {
			close(third)
		}
	}
	s.start(t)
	c := s.client(t)
	transaction(t, c, "", "one@example.org", "stuck@example.org", "three@example.org")
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff(hello))
	c.Expect("250 2.0.0")
	<-third
	readOne(t, s.maildir("three"))
	if left := files(t, filepath.Join(s.maildir("stuck"), "new")); len(left) > 0 {
		t.Errorf("the stuck mailbox has %v", left)
	}
	// Others are served meanwhile.
	wantReplies(t, s.client(t).Send("", []string{"one@example.org"}, hello, 1), "250 2.0.0")
	close(release)
	c.Expect("250 2.0.0")
	c.Expect("250 2.0.0")
	c.Cmd("221", "QUIT")
	readOne(t, s.maildir("stuck"))
}

// A client that does not read its replies holds up nobody: not even the copies of
// its own message.
func TestRepliesNotRead(t *testing.T) {
	s := newSite(t, "a", "b", "c")
	s.writer.Parallel = 1
	reported := make(chan Outcome, 8)
	s.agent.Report = func(o Outcome) { reported <- o }
	s.start(t)
	near, far := net.Pipe() // whatever is written waits until it is read
	served := make(chan error, 1)
	go func() { served <- s.lmtp.Config.ServeConn(context.Background(), far) }()
	c := protocoltest.NewClient(t, near)
	c.Hello("LHLO")
	transaction(t, c, "", "a@example.org", "b@example.org", "c@example.org")
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff(hello))
	<-reported // and its reply is stuck
	wantReplies(t, s.client(t).Send("", []string{"a@example.org", "b@example.org"}, hello, 2), "250 2.0.0", "250 2.0.0")
	for range 3 {
		c.Expect("250 2.0.0")
	}
	c.Cmd("221", "QUIT")
	if err := <-served; err != nil {
		t.Error(err)
	}
	for u, want := range map[string]int{"a": 2, "b": 2, "c": 1} {
		if got := read(t, s.maildir(u)); len(got) != want {
			t.Errorf("%s has %d messages, want %d", u, len(got), want)
		}
	}
}

// TestSMTPOutcomes: one reply for all, and no recipient is lost by it.
func TestSMTPOutcomes(t *testing.T) {
	s := newSite(t, "ok", "full", "loop")
	s.writer.Before = func(op, path string) error {
		if op == maildir.OpWrite && strings.Contains(path, "/full/") {
			return syscall.EDQUOT
		}
		return nil
	}
	s.start(t)
	body := "Delivered-To: loop@example.org\r\n" + hello
	for _, test := range []struct {
		rcpts string
		want  string
	}{
		{"ok", "250 2.0.0 OK "},
		{"ok ok", "250 2.0.0 OK "},
		{"full", "452 4.2.2 Mailbox is full"},
		{"loop", "554 5.4.6 Message was delivered to this address before: mail loop"},
		{"ok full", "452 4.2.2 Mailbox is full"},
		{"loop full", "452 4.2.2 Mailbox is full"},
		{"ok loop", "451 4.3.0 Not every recipient could be served"},
	} {
		c := s.smtpClient(t)
		var rcpts []string
		for _, u := range strings.Fields(test.rcpts) {
			rcpts = append(rcpts, u+"@example.org")
		}
		wantReplies(t, c.Send("ann@example.org", rcpts, body, 1), test.want)
		c.Cmd("221", "QUIT")
	}
}

func TestLoopReplies(t *testing.T) {
	s := newSite(t, "bob", "ann").start(t)
	c := s.client(t)
	rcpts := []string{"bob@example.org", "ann@example.org", "bob+x@example.org"}
	wantReplies(t, c.Send("", rcpts, "Subject: x\r\ndelivered-to:\r\n <BOB@Example.org>\r\n\r\n", 3),
		"554 5.4.6 Message was delivered to this address before: mail loop", "250 2.0.0", "250 2.0.0")
	received := strings.Repeat("Received: by x; Sun, 1 Nov 2026 12:00:00 +0100\r\n", 31)
	wantReplies(t, c.Send("", rcpts[:1], received+"\r\n", 1), "554 5.4.6 Too many Received fields: mail loop")
	wantReplies(t, c.Send("", rcpts[:1], strings.TrimPrefix(received, "Received: by x; Sun, 1 Nov 2026 12:00:00 +0100\r\n")+"\r\n", 1), "250")
	if got := len(read(t, s.maildir("bob"))); got != 2 {
		t.Errorf("bob has %d messages", got)
	}
}

func TestOriginalRecipient(t *testing.T) {
	s := newSite(t, "bob").start(t)
	c := s.client(t)
	for _, test := range []struct{ orcpt, want string }{
		{"rfc822;Info+40example.com", "Info@example.com"},
		{"rfc822;bob@example.org", ""},
		{"x400;something", "x400;something"},
	} {
		c.Cmd("250", "MAIL FROM:<>")
		c.Cmd("250", "RCPT TO:<bob@example.org> ORCPT=%s", test.orcpt)
		c.Cmd("354", "DATA")
		c.Raw(protocoltest.Stuff(hello))
		c.Expect("250 2.0.0")
		trace{orig: test.want, to: "bob@example.org"}.strip(t, readOne(t, s.maildir("bob")))
	}
}

// TestDuplicates: one copy for a mailbox under one address, however it is written;
// another for the same mailbox under another address.
func TestDuplicates(t *testing.T) {
	s := newSite(t, "bob").start(t)
	rcpts := []string{"bob@example.org", "BOB@EXAMPLE.ORG", "bob+x@example.org", `"bob"@example.org`, "bob+x@example.org"}
	got := s.client(t).Send("", rcpts, hello, 5)
	for i := range got {
		if got[i] != got[0] || !strings.HasPrefix(got[i], "250 2.0.0") {
			t.Errorf("reply %d: %q", i, got[i])
		}
	}
	if n := len(read(t, s.maildir("bob"))); n != 2 {
		t.Errorf("%d copies, want 2", n)
	}
	var duplicates []bool
	for _, o := range s.reported() {
		duplicates = append(duplicates, o.Duplicate)
	}
	if n := strings.Count(fmt.Sprint(duplicates), "true"); n != 3 {
		t.Errorf("duplicates: %v", duplicates)
	}
}

// TestStateDirectory: the mail waits with the client while there is no place for it.
func TestStateDirectory(t *testing.T) {
	for name, spoil := range map[string]struct {
		spoil func(s *site) string
		want  string
	}{
		"missing": {func(s *site) string { return filepath.Join(s.dir, "none") }, "451 4.3.0 Temporary internal failure"},
		"full":    {func(s *site) string { return fullDirectory(t) }, "452 4.3.1 Insufficient system storage"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "bob")
			if s.agent.Spool.Dir = spoil.spoil(s); s.agent.Spool.Dir == "" {
				t.Skip("a full file system needs the right to mount one (root)")
			}
			s.start(t)
			c := s.client(t)
			large := "A: b\r\n\r\n" + strings.Repeat("0123456789\r\n", 1<<20/12)
			wantReplies(t, c.Send("", []string{"bob@example.org", "bob@example.org"}, large, 2), spoil.want, spoil.want)
			if left := files(t, s.home("bob")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			wantReplies(t, c.Send("", []string{"bob@example.org"}, hello, 1), "250 2.0.0") // a small one needs no file
		})
	}
}

// fullDirectory is a directory on a small file system; "" if it cannot be mounted.
func fullDirectory(t *testing.T) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		return ""
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	return dir
}

// A body that the server refuses is logged for each recipient with the reply that
// the client got, and nothing is delivered.
func TestRefusedBody(t *testing.T) {
	s := newSite(t, "bob")
	s.limits.MessageSize = 100
	s.start(t)
	wantReplies(t, s.client(t).Send("", []string{"bob@example.org", "bob@example.org"}, hello+strings.Repeat("x\r\n", 100), 2), "552 5.3.4", "552 5.3.4")
	got := s.reported()
	if len(got) != 2 || got[0].Reply.Code != 552 || got[0].Status() != "refused" {
		t.Errorf("reported %+v", got)
	}
	if left := files(t, s.home("bob")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// failing is a database that is down.
type failing struct{ err error }

func (f failing) Lookup(context.Context, userdb.Address) (*userdb.User, error) { return nil, f.err }
func (f failing) String() string                                               { return "failing" }

func TestLookupDown(t *testing.T) {
	s := newSite(t)
	s.agent.Users = failing{errors.New("connect /run/secret.sock: connection refused")}
	s.start(t)
	c := s.client(t)
	got := transaction(t, c, "", "bob@example.org")
	if got[0] != "451 4.3.0 Temporary internal failure" {
		t.Errorf("got %q", got[0])
	}
	c.Cmd("503", "DATA")
	if log := s.log.String(); !strings.Contains(log, "/run/secret.sock") || !strings.Contains(log, "level=WARN") {
		t.Errorf("log: %s", log)
	}
}

// A recipient that another hook has let through is no crash.
func TestRecipientWithoutLookup(t *testing.T) {
	s := newSite(t, "bob")
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, s.agent)
	srv.Config.Log = s.agent.Log
	srv.StartUnix()
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	wantReplies(t, c.Send("", []string{"bob@example.org"}, hello, 1), "451 4.3.0")
}

func TestIDs(t *testing.T) {
	var a Agent
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				id := a.newID()
				mu.Lock()
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 400 {
		t.Errorf("%d ids of 400", len(seen))
	}
}
