package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// TestLargeMessages: messages of 10 MiB in 16 sessions at once take at most 1 MiB of
// memory each, and their octets are written once to be spooled and once for each copy.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	const sessions, size, copies = 16, 10 << 20, 2
	var users []string
	for i := range sessions {
		users = append(users, fmt.Sprint("one", i), fmt.Sprint("two", i))
	}
	s := startPlainSite(t, users...)
	line := []byte(strings.Repeat("0123456789abcdef", 4) + "\r\n")
	content := append([]byte(header+"\r\n"), bytes.Repeat(line, size/len(line))...)
	clients := make([]*client, sessions)
	for i := range clients {
		clients[i] = dial(t, s.sock)
		clients[i].expect(t, "250", "LHLO client.example.net")
	}
	send := func(i int) error {
		c := clients[i]
		say := func(code, text string) error {
			if _, err := c.conn.Write([]byte(text)); err != nil {
				return err
			}
			answer, err := c.in.ReadString('\n')
			if err != nil || !strings.HasPrefix(answer, code+" ") {
				return fmt.Errorf("%.60q: %q, %w", text, answer, err)
			}
			return nil
		}
		return errors.Join(
			say("250", "MAIL FROM:<sender@example.net>\r\n"),
			say("250", fmt.Sprintf("RCPT TO:<one%d@example.org>\r\n", i)),
			say("250", fmt.Sprintf("RCPT TO:<two%d@example.org>\r\n", i)),
			say("354", "DATA\r\n"),
			say("250", string(content)+".\r\n"),
			say("250", ""),
		)
	}
	// The first message is for what is allocated once.
	if err := send(0); err != nil {
		t.Fatal(err)
	}
	pid := s.cmd.Process.Pid
	before, written := statusKiB(t, pid, "VmRSS"), octetsWritten(t, pid)
	// From here on VmHWM is the most that it has had since, see proc_pid_clear_refs(5).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Skip("memory cannot be measured here:", err)
	}
	var all sync.WaitGroup
	errs := make([]error, sessions)
	for i := range sessions {
		all.Go(func() { errs[i] = send(i) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	grown := statusKiB(t, pid, "VmHWM") - before
	written = octetsWritten(t, pid) - written
	stored := 0
	for i := range sessions {
		for _, user := range []string{users[2*i], users[2*i+1]} {
			for _, m := range messages(t, s.maildir(user)) {
				stored += len(m.content)
				if !bytes.HasSuffix(m.content, asStored(content)) {
					t.Errorf("%s: %d octets are not what was sent", user, len(m.content))
				}
			}
		}
	}
	stored = stored * sessions / (sessions + 1) // without the first
	t.Logf("%d KiB more for %d sessions; %d octets written, %d stored", grown, sessions, written, stored)
	if grown > sessions<<10 {
		t.Errorf("%d KiB more for %d sessions", grown, sessions)
	}
	// Beside them it writes replies, log lines and its memory of redeliveries.
	if least := stored + stored/copies; written < least || written > least+least/100 {
		t.Errorf("%d octets written, want %d: once to the spool, once for each copy", written, least)
	}
	s.stop(t)
}

// statusKiB is a figure of /proc/PID/status.
func statusKiB(t *testing.T, pid int, key string) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + `:\s+(\d+) kB$`).FindStringSubmatch(readFile(t, fmt.Sprintf("/proc/%d/status", pid)))
	if m == nil {
		t.Fatal("no ", key)
	}
	return atoi(t, m[1])
}

// octetsWritten is what a process has handed to the kernel to be written.
func octetsWritten(t *testing.T, pid int) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^wchar: (\d+)$`).FindStringSubmatch(readFile(t, fmt.Sprintf("/proc/%d/io", pid)))
	if m == nil {
		t.Fatal("no wchar")
	}
	return atoi(t, m[1])
}
