package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// twoProcesses is a site of login accounts with a front and a writer, each with the
// rights that the package gives it and no other.
type twoProcesses struct {
	acc    accounts
	dir    string
	front  *agent
	writer *agent
	socket *os.File // the writer's, which outlives writers as systemd's does
	lmtp   string
	config string
}

const writerAccount = 5001 // uid and gid

func startTwoProcesses(t *testing.T, names ...string) *twoProcesses {
	t.Helper()
	return startTwoProcessesWith(t, func(string) string { return "" }, names...)
}

// startTwoProcessesWith adds lines to the configuration, which may depend on the
// directory of the test.
func startTwoProcessesWith(t *testing.T, more func(dir string) string, names ...string) *twoProcesses {
	t.Helper()
	s := &twoProcesses{dir: tempDir(t)}
	s.acc = newAccounts(t, s.dir, names...)
	run := filepath.Join(s.dir, "run")
	mkdir(t, run, mailUser(t))
	s.lmtp = filepath.Join(run, "lmtp.sock")
	path := filepath.Join(run, "writer.sock")
	s.config = fmt.Sprintf(`hostname = "mx.example.org"
[[listen]]
address = %q
[[userdb]]
type = "system"
[writer]
socket = %q
front_user = "%d"
[status]
socket = ""
`, s.lmtp, path, mailUser(t).Uid)

	s.config += more(s.dir)

	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if err := os.Chmod(path, 0o666); err != nil { // the peer's uid decides
		t.Fatal(err)
	}
	if s.socket, err = ln.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.socket.Close() })
	s.startWriter(t)
	s.front = startLMTPD(t, agentOptions{
		dir: s.dir, config: s.config, as: mailUser(t),
		within: s.as(mailUser(t).Uid, "-all"),
	})
	return s
}

// as is a command that starts others as an account with these capabilities alone.
func (s *twoProcesses) as(id uint32, caps string) []string {
	return append(s.acc.within[:len(s.acc.within):len(s.acc.within)], "setpriv",
		fmt.Sprint("--reuid=", id), fmt.Sprint("--regid=", id), "--clear-groups",
		"--inh-caps="+caps, "--ambient-caps="+caps, "--bounding-set="+caps)
}

func (s *twoProcesses) startWriter(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "writer")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.writer = startLMTPD(t, agentOptions{
		dir: dir, config: s.config, command: "writer", socket: s.socket,
		within: s.as(writerAccount, "-all,+setuid,+setgid"),
	})
}

// status gives a line of /proc/PID/task/*/status, which must be the same for each
// thread; their states may differ, and make "several".
func status(t *testing.T, a *agent, key string) string {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", a.cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads", err)
	}
	value := ""
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			v, ok := strings.CutPrefix(line, key+":")
			if v = strings.Join(strings.Fields(v), " "); ok && value != "" && v != value && key == "State" {
				return "several"
			} else if ok && value != "" && v != value {
				t.Errorf("%s is %q for one thread and %q for another", key, value, v)
			} else if ok {
				value = v
			}
		}
	}
	return value
}

func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	names := []string{"lmtpd-ann", "lmtpd-bob"}
	s := startTwoProcesses(t, names...)
	for _, size := range []int{0, 100 << 10, 2 << 20} { // in the packet, in several, as a file
		message := []byte(header + "\r\n" + strings.Repeat("0123456789abcdef\r\n", size/18+1))
		c := dial(t, s.lmtp)
		c.expect(t, "250", "LHLO client.example.net")
		for i, r := range c.send(t, "sender@example.net", "", []string{"lmtpd-ann", "lmtpd-bob+lists"}, message, 2) {
			if !strings.HasPrefix(r, "250 2.0.0 ") {
				t.Fatalf("%s: %q", names[i], r)
			}
		}
		c.expect(t, "250", "MAIL FROM:<>")
		c.expect(t, "550 5.1.1", "RCPT TO:<nobody-here>")
		c.expect(t, "550 5.1.1", "RCPT TO:<root>")
		c.expect(t, "221", "QUIT")
		for i, name := range names {
			box := filepath.Join(s.acc.home(name), "Maildir")
			m := oneMessage(t, box)
			if !bytes.HasSuffix(m.content, bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("%s: %d octets stored of a message of %d", name, len(m.content), len(message))
			}
			checkOwner(t, s.acc.home(name), firstAccount+uint32(i))
			if err := os.RemoveAll(box); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range []struct {
		a         *agent
		uid, caps string
	}{{s.front, fmt.Sprint(mailUser(t).Uid), "0000000000000000"}, {s.writer, fmt.Sprint(writerAccount), "00000000000000c0"}} {
		for key, want := range map[string]string{
			"CapPrm": p.caps, "CapEff": p.caps, "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
			"NoNewPrivs": "1", "Uid": strings.TrimSpace(strings.Repeat(p.uid+" ", 4)),
		} {
			if got := status(t, p.a, key); got != want {
				t.Errorf("%s: %s is %q, want %q", p.a.name, key, got, want)
			}
		}
		if p.a.stderr.await(t, "landlock="); strings.Contains(p.a.stderr.String(), "confined less") {
			t.Errorf("%s is not confined", p.a.name)
		}
	}
	// A reload that needs what the front has given up is refused, others are not.
	for replacement, want := range map[string]string{
		filepath.Join(s.dir, "other", "lmtp.sock"):        "was not needed when this process started",
		filepath.Join(filepath.Dir(s.lmtp), "other.sock"): "configuration reloaded",
	} {
		writeFile(t, s.front.config, strings.Replace(s.config, s.lmtp, replacement, 1))
		s.front.signal(t, syscall.SIGHUP)
		s.front.stderr.await(t, want)
	}
	dial(t, filepath.Join(filepath.Dir(s.lmtp), "other.sock"))
	s.front.stop(t)
	s.writer.stop(t)
}

// A writer that is killed while it has a request fails that request for now, and the
// next writer takes the next one.
func TestWriterKilled(t *testing.T) {
	t.Parallel()
	need(t, "ss")
	s := startTwoProcesses(t, "lmtpd-ann")
	message := []byte(header + "\r\nHello.\r\n")
	c := dial(t, s.lmtp)
	c.expect(t, "250", "LHLO client.example.net")
	if r := c.send(t, "a@example.net", "", []string{"lmtpd-ann"}, message, 1)[0]; !strings.HasPrefix(r, "250 ") {
		t.Fatal(r)
	}
	delivered, deferred := 1, 0
	for attempt := 0; deferred == 0 && attempt < 10; attempt++ {
		// Stopped, it has the request in its socket and does nothing about it.
		s.stopWriter(t)
		c.expect(t, "250", "MAIL FROM:<a@example.net>")
		c.expect(t, "250", "RCPT TO:<lmtpd-ann>")
		c.expect(t, "354", "DATA")
		c.body(t, message)
		s.awaitRequest(t)
		s.writer.signal(t, syscall.SIGKILL)
		s.writer.wait(t)
		s.startWriter(t)
		switch r := c.reply(t); {
		case strings.HasPrefix(r, "451 4.3.0 "):
			deferred++
		case strings.HasPrefix(r, "250 "): // it lay in the backlog, where the next writer found it
			delivered++
		default:
			t.Errorf("the writer was killed: %q", r)
		}
	}
	if deferred == 0 {
		t.Error("no request was in the connection of a writer that was killed")
	}
	if r := c.send(t, "a@example.net", "", []string{"lmtpd-ann"}, message, 1)[0]; !strings.HasPrefix(r, "250 ") {
		t.Errorf("with a new writer: %q", r)
	}
	if n := len(messages(t, filepath.Join(s.acc.home("lmtpd-ann"), "Maildir"))); n != delivered+1 {
		t.Errorf("%d messages, and %d were delivered", n, delivered+1)
	}
	s.front.stop(t)
	s.writer.stop(t)
}

// stopWriter stops each thread of the writer.
func (s *twoProcesses) stopWriter(t *testing.T) {
	t.Helper()
	s.writer.signal(t, syscall.SIGSTOP)
	for begin := time.Now(); time.Since(begin) < patience; {
		if state := status(t, s.writer, "State"); state == "T (stopped)" {
			return
		}
	}
	t.Fatal("the writer does not stop")
}

// awaitRequest waits until something lies in a connection to the writer's socket,
// where a writer that is stopped leaves it.
func (s *twoProcesses) awaitRequest(t *testing.T) {
	t.Helper()
	path := filepath.Join(s.dir, "run", "writer.sock")
	for begin := time.Now(); time.Since(begin) < patience; {
		for line := range strings.Lines(run(t, "", "ss", "--unix", "--no-header")) {
			f := strings.Fields(line) // type, state, octets to receive, to send, address
			if len(f) > 4 && f[0] == "u_seq" && f[1] == "ESTAB" && f[2] != "0" && f[4] == path {
				return
			}
		}
	}
	t.Fatal("the writer gets no request")
}

// load delivers until it has had so many acknowledgements, on several sessions, and
// returns the replies other than 250.
func load(t *testing.T, s *twoProcesses, name string, total int) (acknowledged map[string]bool, others []string) {
	t.Helper()
	var mu sync.Mutex
	acknowledged = map[string]bool{}
	var all sync.WaitGroup
	for session := range 4 {
		all.Go(func() {
			c := dial(t, s.lmtp)
			c.expect(t, "250", "LHLO client.example.net")
			for n := range total / 4 {
				id := fmt.Sprintf("mark-%d-%d-", session, n)
				for range 50 { // attempts, as an MTA makes them
					r := c.send(t, "a@example.net", "", []string{name}, []byte(header+"\r\n"+id+"\r\n"), 1)[0]
					ok := strings.HasPrefix(r, "250 ")
					mu.Lock()
					if ok {
						acknowledged[id] = true
					} else {
						others = append(others, r)
					}
					mu.Unlock()
					if ok {
						break
					}
				}
			}
		})
	}
	all.Wait()
	return acknowledged, others
}

// marks counts the messages by their mark.
func marks(t *testing.T, box string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, m := range messages(t, box) {
		_, body, _ := bytes.Cut(m.content, []byte("\n\n"))
		count[strings.TrimSpace(string(body))]++
	}
	return count
}

// Whatever is acknowledged while writers are killed one after the other is there, and
// whatever is not is a temporary failure.
func TestWriterKilledUnderLoad(t *testing.T) {
	t.Parallel()
	s := startTwoProcesses(t, "lmtpd-ann")
	over := make(chan struct{})
	var acknowledged map[string]bool
	var others []string
	go func() {
		defer close(over)
		acknowledged, others = load(t, s, "lmtpd-ann", 200)
	}()
	kills := 0
	box := filepath.Join(s.acc.home("lmtpd-ann"), "Maildir", "new")
	for last := 0; ; {
		select {
		case <-over:
		default:
			names, err := os.ReadDir(box)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if len(names) < last+10 || kills == 8 {
				continue
			}
			last = len(names)
			s.writer.signal(t, syscall.SIGKILL)
			s.writer.wait(t)
			s.startWriter(t)
			kills++
			continue
		}
		break
	}
	for _, r := range others {
		if !strings.HasPrefix(r, "4") {
			t.Errorf("reply %q", r)
		}
	}
	clearTmp(t, filepath.Dir(box))
	count := marks(t, filepath.Dir(box))
	if len(acknowledged) != 200 {
		t.Errorf("%d acknowledged", len(acknowledged))
	}
	for id := range acknowledged {
		if count[id] == 0 {
			t.Errorf("%s was acknowledged and is not there", id)
		}
	}
	t.Logf("%d kills, %d temporary failures, %d messages for %d", kills, len(others), len(messages(t, filepath.Dir(box))), len(acknowledged))
	s.front.stop(t)
	s.writer.stop(t)
}

// A writer that is asked to end while there is load costs nobody a failure, and
// nobody gets a message twice.
func TestWriterRestarts(t *testing.T) {
	t.Parallel()
	s := startTwoProcesses(t, "lmtpd-ann")
	over := make(chan struct{})
	var others []string
	go func() {
		defer close(over)
		_, others = load(t, s, "lmtpd-ann", 200)
	}()
	for n := range 5 {
		if n == 2 { // a reload makes a new server too
			s.writer.signal(t, syscall.SIGHUP)
			s.writer.awaitState(t, "READY=1")
		}
		s.writer.stop(t)
		s.startWriter(t)
	}
	<-over
	if len(others) > 0 {
		t.Errorf("replies: %q", others)
	}
	count := marks(t, filepath.Join(s.acc.home("lmtpd-ann"), "Maildir"))
	for id, n := range count {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if len(count) != 200 {
		t.Errorf("%d messages", len(count))
	}
	s.front.stop(t)
	s.writer.stop(t)
}
