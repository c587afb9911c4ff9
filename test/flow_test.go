package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// flow delivers numbered messages over several sessions at once, as many as it is
// granted.
type flow struct {
	grants chan<- struct{} // one for each message

	first chan struct{} // closed when one message has been acknowledged, or none will be

	mu     sync.Mutex
	acked  map[int]bool // messages that have their 250
	sent   int
	failed error
	over   chan struct{} // closed when all that was granted has been acknowledged
}

const flowSessions = 3

// startFlow begins to deliver to an address.
func startFlow(t *testing.T, sock, to string) *flow {
	grants := make(chan struct{}, 1<<16)
	l := &flow{grants: grants, acked: make(map[int]bool), first: make(chan struct{}), over: make(chan struct{})}
	var all sync.WaitGroup
	for range flowSessions {
		all.Go(func() {
			if err := l.session(sock, to, grants); err != nil {
				l.mu.Lock()
				l.failed = errors.Join(l.failed, err)
				l.mu.Unlock()
			}
		})
	}
	go func() {
		all.Wait()
		if len(l.acked) == 0 {
			close(l.first)
		}
		close(l.over)
	}()
	t.Cleanup(func() {
		l.end()
		<-l.over
	})
	return l
}

// grant lets n more messages be sent.
func (l *flow) grant(n int) {
	for range n {
		l.grants <- struct{}{}
	}
}

// end says that there will be no more grants. It may be called again.
func (l *flow) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grants != nil {
		close(l.grants)
		l.grants = nil
	}
}

// acknowledged gives the messages that have their 250 by now.
func (l *flow) acknowledged(t *testing.T) []int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		t.Fatal(l.failed)
	}
	all := make([]int, 0, len(l.acked))
	for n := range l.acked {
		all = append(all, n)
	}
	return all
}

func (l *flow) session(sock, to string, grants <-chan struct{}) error {
	conn, err := net.Dial("unix", sock)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	// say sends a command, or the end of a message, and takes the last line of the reply.
	say := func(code, text string) error {
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write([]byte(text)); err != nil {
			return err
		}
		for {
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, code) {
				return fmt.Errorf("%.40q: %q, %w", text, line, err)
			}
			if line[3] == ' ' {
				return nil
			}
		}
	}
	if err := errors.Join(say("220", ""), say("250", "LHLO client.example.net\r\n")); err != nil {
		return err
	}
	for range grants {
		l.mu.Lock()
		n := l.sent
		l.sent++
		l.mu.Unlock()
		content := strings.ReplaceAll(string(numbered(n)), "\n", "\r\n")
		for _, step := range [][2]string{
			{"250", "MAIL FROM:<sender@example.net>\r\n"}, {"250", "RCPT TO:<" + to + ">\r\n"}, {"354", "DATA\r\n"},
			{"250", strings.ReplaceAll(content, "\r\n.", "\r\n..") + ".\r\n"},
		} {
			if err := say(step[0], step[1]); err != nil {
				return err
			}
		}
		l.mu.Lock()
		if l.acked[n] = true; len(l.acked) == 1 {
			close(l.first)
		}
		l.mu.Unlock()
	}
	return nil
}

// numbered is a message as it is stored, after the trace header. Every fortieth is
// larger than what the daemon holds in memory.
func numbered(n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "X-Number: %d\nFrom: sender@example.net\nTo: someone@example.org\nSubject: message %d\n", n, n)
	fmt.Fprintf(&b, "Date: Mon, 02 Jan 2006 15:04:05 -0700\nMessage-ID: <%d@example.net>\n\n", n)
	lines := n * 7 % 40
	if n%40 == 39 {
		lines = 10_000
	}
	for i := range lines {
		fmt.Fprintf(&b, "%*d of message %d\n", i%60, i, n)
	}
	fmt.Fprintf(&b, ".\n-- end of %d\n", n)
	return b.Bytes()
}

var numberLine = regexp.MustCompile(`(?m)^X-Number: (\d+)\n`)

// wholeMessages finds the numbered messages in what a reader has written, whatever it
// put between them, and says how often each is there. One that differs from what was
// sent fails the test.
func wholeMessages(t *testing.T, text []byte) map[int]int {
	t.Helper()
	found := make(map[int]int)
	for {
		at := numberLine.FindSubmatchIndex(text)
		if at == nil {
			return found
		}
		n, err := strconv.Atoi(string(text[at[2]:at[3]]))
		if err != nil {
			t.Fatal(err)
		}
		text = text[at[0]:]
		want := numbered(n)
		if !bytes.HasPrefix(text, want) {
			t.Fatalf("message %d is not as it was sent: %s", n, firstDifference(text[:min(len(text), len(want))], want))
		}
		found[n]++
		text = text[len(want):]
	}
}
