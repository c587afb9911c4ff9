package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gomaildir "github.com/emersion/go-maildir"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// remembering is a site with a Redelivery, and told when it is known about replies.
func remembering(t testing.TB, users ...string) *site {
	t.Helper()
	s := newSite(t, users...)
	s.agent.Redelivery = openRedelivery(t, s.state, RedeliveryOptions{})
	s.told = make(chan bool, 100)
	return s
}

// upToData sends a transaction and its data, and reads no reply to it.
func upToData(t testing.TB, c *protocoltest.Client, body, more string, rcpts ...string) {
	t.Helper()
	c.Cmd("250", "MAIL FROM:<ann@example.org>")
	for _, r := range rcpts {
		c.Cmd("250", "RCPT TO:<%s>", r)
	}
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff(body) + more)
}

// TestAgain: a client that loses its replies and comes again gets 250 and no second
// copy; one that sends the same twice on purpose gets two copies.
func TestAgain(t *testing.T) {
	rcpts := []string{"bob@example.org", "who+x@example.org", "bob@example.org"}
	for _, large := range []bool{false, true} {
		body := hello
		if large {
			body += strings.Repeat("0123456789\r\n", 50_000)
		}
		s := remembering(t, "bob", "who").start(t)
		c := s.client(t)
		upToData(t, c, body, "", rcpts...)
		if got := c.Reply(); !strings.HasPrefix(got, "250 2.0.0") {
			t.Fatal(got)
		}
		c.Close() // two replies are not read
		if <-s.told {
			t.Error("the replies were not seen")
		}
		c = s.client(t)
		for i := range 2 {
			got := c.Send("ann@example.org", rcpts, body, 3)
			for _, r := range got {
				if again := strings.HasSuffix(r, "was delivered before"); !strings.HasPrefix(r, "250 2.0.0 OK ") || again != (i == 0) {
					t.Errorf("time %d: %q", i+2, r)
				}
			}
		}
		// Another sender, recipient or content is another message.
		c.Cmd("250", "RSET")
		c.Send("eve@example.org", rcpts[:1], body, 1)
		c.Send("ann@example.org", []string{"bob+y@example.org"}, body, 1)
		c.Send("ann@example.org", rcpts[:1], body+"\r\n", 1)
		c.Cmd("221", "QUIT")
		c.EOF()
		for range 5 {
			if !<-s.told {
				t.Error("the replies were seen")
			}
		}
		for user, want := range map[string]int{"bob": 5, "who": 2} {
			if got := len(read(t, s.maildir(user))); got != want {
				t.Errorf("%s has %d messages, want %d", user, got, want)
			}
		}
		if n := s.agent.Redelivery.Len(); n != 0 {
			t.Errorf("%d are still remembered", n)
		}
		if log := s.log.String(); strings.Count(log, " again=true ") != 3 {
			t.Errorf("log: %s", log)
		}
	}
}

// The client loses patience while the copy is being written, and is back at once.
func TestAgainMeanwhile(t *testing.T) {
	s := remembering(t, "bob", "ann")
	begun, release := make(chan struct{}, 10), make(chan struct{})
	s.writer.Before = func(op, path string) error {
		if op == maildir.OpSync && strings.Contains(path, "/bob/") {
			begun <- struct{}{}
			<-release
		}
		return nil
	}
	s.start(t)
	first := s.client(t)
	upToData(t, first, hello, "QUIT\r\n", "bob@example.org")
	<-begun
	// A client that is there has sent it on purpose.
	purpose := s.client(t)
	upToData(t, purpose, hello, "", "bob@example.org")
	<-begun
	first.Close()
	back := s.client(t)
	upToData(t, back, hello, "", "bob@example.org")
	close(release)
	if got := back.Reply(); !strings.HasSuffix(got, "was delivered before") {
		t.Errorf("back: %q", got)
	}
	if got := purpose.Reply(); !strings.HasSuffix(got, " delivered") {
		t.Errorf("on purpose: %q", got)
	}
	if n := len(read(t, s.maildir("bob"))); n != 2 {
		t.Errorf("%d copies", n)
	}
}

// A transaction that hangs, whose client is gone, holds up nobody but its own recipients
// when the message comes again, and those not for ever.
func TestAgainWhileItHangs(t *testing.T) {
	s := remembering(t, "bob", "ann")
	relay := &heldTransport{begun: make(chan struct{}, 10), release: make(chan struct{})}
	s.agent.Transports = Transports{Named: map[string]Transport{"relay": relay}, Domains: map[string]string{"example.net": "relay"}}
	s.users(t, fmt.Sprintf("bob@example.org:::::%s::\nann@example.org:::::%s::\neve@example.net:::::/::\n", s.home("bob"), s.home("ann")))
	s.agent.Users = s.passwd(t)
	s.agent.Redelivery.Close()
	s.agent.Redelivery = openRedelivery(t, s.state, RedeliveryOptions{Patience: 50 * time.Millisecond})
	s.start(t)
	all := []string{"bob@example.org", "eve@example.net", "ann@example.org"}
	first := s.client(t)
	upToData(t, first, hello, "", all[:2]...)
	<-relay.begun
	first.Close()

	back := s.client(t)
	wantReplies(t, back.Send("ann@example.org", all, hello, 3), "451 4.3.2", "451 4.3.2", "250 2.0.0")
	if log := s.log.String(); !strings.Contains(log, errUnderWay.Error()) {
		t.Errorf("log: %s", log)
	}
	back.Cmd("221", "QUIT")
	s.agent.Redelivery.opts.Patience = time.Hour
	patient := s.client(t)
	upToData(t, patient, hello, "", "ann@example.org", "eve@example.net", "bob@example.org")
	if got := patient.Reply(); !strings.HasPrefix(got, "250 2.0.0") { // while the others wait
		t.Error(got)
	}
	close(relay.release)
	for range 2 {
		if got := patient.Reply(); !strings.HasSuffix(got, "was delivered before") {
			t.Errorf("got %q", got)
		}
	}
	if n := len(read(t, s.maildir("bob"))); n != 1 {
		t.Errorf("%d copies", n)
	}
}

// heldTransport takes each message when the test lets it.
type heldTransport struct{ begun, release chan struct{} }

func (h *heldTransport) Deliver(_ context.Context, p *Parcel, done func(int, Handover)) {
	h.begun <- struct{}{}
	<-h.release
	for i := range p.Rcpts {
		done(i, Handover{})
	}
}

// In SMTP mode those who were served do not get a second copy when the client comes
// again for the others.
func TestAgainSMTP(t *testing.T) {
	s := remembering(t, "ok", "full")
	var full atomic.Bool
	full.Store(true)
	s.writer.Before = func(op, path string) error {
		if op == maildir.OpWrite && strings.Contains(path, "/full/") && full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}
	s.start(t)
	rcpts := []string{"ok@example.org", "full@example.org"}
	for range 3 {
		c := s.smtpClient(t)
		wantReplies(t, c.Send("ann@example.org", rcpts, hello, 1), "452 4.3.1")
		c.Cmd("221", "QUIT")
		if !<-s.told {
			t.Error("the reply was seen")
		}
	}
	full.Store(false)
	c := s.smtpClient(t)
	wantReplies(t, c.Send("ann@example.org", rcpts, hello, 1), "250 2.0.0")
	c.Cmd("250", "NOOP")
	for _, u := range []string{"ok", "full"} {
		readOne(t, s.maildir(u))
	}
	<-s.told
	wantReplies(t, c.Send("ann@example.org", rcpts, hello, 1), "250 2.0.0")
	if n := len(read(t, s.maildir("ok"))); n != 1 {
		t.Errorf("on purpose: %d copies", n)
	}
}

// A name whose way to the disk is not known is looked for.
func TestAgainAfterSyncFailure(t *testing.T) {
	s := remembering(t, "bob")
	var fail atomic.Bool
	fail.Store(true)
	s.writer.Before = func(op, path string) error {
		if fail.Load() && (op == maildir.OpSyncDir || op == maildir.OpRemove) {
			return syscall.EIO
		}
		return nil
	}
	s.start(t)
	c := s.client(t)
	wantReplies(t, c.Send("", []string{"bob@example.org"}, hello, 1), "451 4.3.0")
	fail.Store(false)
	if got := c.Send("", []string{"bob@example.org"}, hello, 1)[0]; !strings.HasSuffix(got, "was delivered before") {
		t.Errorf("got %q", got)
	}
	readOne(t, s.maildir("bob"))
}

// A binary message has no line ends.
func TestBinaryMessage(t *testing.T) {
	s := newSite(t, "bob").start(t)
	c := s.client(t)
	c.Cmd("250", "MAIL FROM:<> BODY=BINARYMIME")
	c.Cmd("250", "RCPT TO:<bob@example.org>")
	body := "Return-Path: <x>\r\nContent-Transfer-Encoding: binary\r\n\r\n\r\n\n\r.\r\n\x00"
	c.Raw(fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", 10, body[:10], len(body)-10, body[10:]))
	c.Expect("250")
	c.Expect("250 2.0.0")
	stored := readOne(t, s.maildir("bob"))
	if !strings.HasPrefix(stored, "Return-Path: <>\r\n") || !strings.HasSuffix(stored, "\r\nContent-Transfer-Encoding: binary\r\n\r\n\r\n\n\r.\r\n\x00") {
		t.Errorf("stored %q", stored)
	}
}

const childDir = "LMTPD_TEST_CHILD_DIR" // and, in childStep, the step at which to die
const childStep = "LMTPD_TEST_CHILD_STEP"

// TestRedeliveryChild is the process that TestAgainKilled kills.
func TestRedeliveryChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("it is run by TestAgainKilled")
	}
	step, err := strconv.Atoi(os.Getenv(childStep))
	if err != nil {
		t.Fatal(err)
	}
	s := newSiteIn(t, dir, "bob", "ann")
	s.agent.Redelivery = openRedelivery(t, s.state, RedeliveryOptions{})
	var steps atomic.Int64
	die := func() {
		if steps.Add(1) == int64(step) {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	s.writer.Before = func(string, string) error { die(); return nil }
	s.agent.Report = func(Outcome) { die() }
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &protocol.Server{
		Mode: protocol.LMTP, Hostname: "mx.example.org", Handler: s.agent, Log: s.agent.Log,
		Policy: protocol.Policy{Rcpt: s.agent.Rcpt, Replied: s.agent.Replied},
	}
	fmt.Println("ready")
	srv.Serve(l)
}

// child starts a process that dies at a step; 0: never.
func child(t *testing.T, dir string, step int) (wait func()) {
	t.Helper()
	os.Remove(filepath.Join(dir, "sock"))
	cmd := exec.Command(os.Args[0], "-test.run=^TestRedeliveryChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childStep+"="+strconv.Itoa(step))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("child: %q, %v", line, err)
	}
	return func() {
		cmd.Process.Kill() // where it has not died by itself
		cmd.Wait()
	}
}

// TestAgainKilled: the process is killed at each step of a delivery, and the client
// sends the message again, as it must: each recipient has one copy in the end.
func TestAgainKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two processes for each step")
	}
	users := []string{"bob", "ann"}
	rcpts := []string{"bob@example.org", "ann@example.org"}
	died := 0
	for step := 1; ; step++ {
		dir := memoryDir(t)
		for _, u := range users { // their making would be most of the steps
			box := filepath.Join(dir, "home", u, "Maildir")
			if err := os.MkdirAll(box, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := gomaildir.Dir(box).Init(); err != nil {
				t.Fatal(err)
			}
		}
		wait := child(t, dir, step)
		replies := attemptDelivery(t, dir, rcpts)
		wait()
		if slices.Equal(replies, []string{"250", "250"}) && died > 10 {
			break // it did not get to the step
		}
		died++
		wait = child(t, dir, 0)
		// Of those that were acknowledged nobody asks again; the client asks for all
		// in one transaction, since it cannot know.
		if got := attemptDelivery(t, dir, rcpts); !slices.Equal(got, []string{"250", "250"}) {
			t.Fatalf("step %d: second attempt: %v", step, got)
		}
		wait()
		for _, u := range users {
			if n := len(read(t, filepath.Join(dir, "home", u, "Maildir"))); n != 1 {
				t.Errorf("killed at step %d: %s has %d copies", step, u, n)
			}
		}
		if step > 200 {
			t.Fatal("no end of steps")
		}
	}
	t.Logf("killed at %d steps", died)
}

// attemptDelivery sends one message and gives the codes of its replies, as many as
// came. Being cut off is no failure.
func attemptDelivery(t *testing.T, dir string, rcpts []string) (replies []string) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	reply := func() (string, error) {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return "", err
			}
			if len(line) > 3 && line[3] == ' ' {
				return line[:3], nil
			}
		}
	}
	script := []string{"LHLO client.example.org", "MAIL FROM:<ann@example.org>"}
	for _, to := range rcpts {
		script = append(script, "RCPT TO:<"+to+">")
	}
	script = append(script, "DATA")
	_, err = reply()
	for _, line := range script {
		if err == nil {
			_, err = conn.Write([]byte(line + "\r\n"))
		}
		if err == nil {
			_, err = reply()
		}
	}
	if err == nil {
		_, err = conn.Write([]byte(protocoltest.Stuff(hello)))
	}
	for range rcpts {
		var code string
		if err == nil {
			if code, err = reply(); err == nil {
				replies = append(replies, code)
			}
		}
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && err.Error() != "EOF" {
		t.Errorf("client: %v", err)
	}
	return replies
}
