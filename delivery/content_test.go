package delivery

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// dotStuffed is data as the wire has it, for bodies that protocoltest.Stuff would
// alter: line ends that are none stay as they are.
func dotStuffed(body string) string {
	b := strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n..")[2:]
	if !strings.HasSuffix(body, "\r\n") && body != "" {
		b += "\r\n" // the end of data needs one
	}
	return b + ".\r\n"
}

// asStored is what becomes of a message in a Maildir.
func asStored(body string) string { return string(slowConvert([]byte(body))) }

// TestContent sends messages that others would alter, and reads them back octet by
// octet with a reader that is not ours.
func TestContent(t *testing.T) {
	s := newSite(t, "bob").start(t)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	const head = "From: ann@example.org\r\nSubject: test\r\n"
	big := head
	for i := 0; len(big) < maxFieldName*8<<10; i++ {
		big += "X-Long: " + strings.Repeat("0123456789 ", 90) + "\r\n\t" + strings.Repeat("x", i%70) + "\r\n"
	}
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300<<10)
	for i := range noise {
		noise[i] = "\r\n.\x00a"[random.IntN(5)]
	}
	for _, test := range []struct {
		name, sent string
		bare       bool
		stored     string // "": as sent, with LF
	}{
		{name: "plain", sent: head + "\r\nbody\r\n"},
		{name: "dots", sent: head + "\r\n.\r\n..\r\n.a\r\na.\r\n...\r\n"},
		{name: "final newline missing", sent: head + "\r\nno end", stored: asStored(head) + "\nno end\n"},
		{name: "NUL", sent: head + "\r\n\x00\r\na\x00b\r\n"},
		{name: "bare CR and LF", sent: head + "\r\na\rb\nc\n.\nd\r\r\r\n"},
		{name: "CR CR LF", sent: head + "\r\na\r\r\nb\r\r\n"},
		{name: "every octet", sent: head + "X: " + "\xff\xfe" + "\r\n\r\n" + string(every) + "\r\n"},
		{name: "noise", sent: head + "\r\n" + string(noise) + "\r\n"},
		{name: "one long line", sent: head + "\r\n" + strings.Repeat("x", 1<<20) + "\r\n"},
		{name: "header of 640 KiB", sent: big + "\r\nbody\r\n"},
		{name: "header without end", sent: big},
		{name: "empty", sent: ""},
		{name: "empty line", sent: "\r\n"},
		{name: "body only", sent: "\r\nReturn-Path: <body@example.org>\r\n"},
		{name: "no header", sent: "hello\r\nBcc: nobody\r\n", bare: true},
		{name: "begins like a continuation", sent: " for <x@y>; date\r\nA: b\r\n\r\n", bare: true},
		{name: "Return-Path", sent: "Return-Path: <x@y>\r\n" + head + "RETURN-PATH:\r\n <x@y>\r\n\t(more)\r\nX: y\r\n z\r\n\r\nReturn-Path: <kept>\r\n",
			stored: asStored(head + "X: y\r\n z\r\n\r\nReturn-Path: <kept>\r\n")},
		{name: "Return-Path and no more", sent: "Return-Path: <x@y>\r\nhello\r\n", bare: true, stored: "hello\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.client(t)
			c.Cmd("250", "MAIL FROM:<ann@example.org> BODY=8BITMIME")
			c.Cmd("250", "RCPT TO:<bob@example.org>")
			c.Cmd("354", "DATA")
			c.Raw(dotStuffed(test.sent))
			c.Expect("250 2.0.0 OK ")
			c.Cmd("221", "QUIT")
			c.EOF()
			want := test.stored
			if want == "" {
				want = asStored(test.sent)
			}
			if test.bare {
				want = "\n" + want
			}
			got := trace{from: "ann@example.org", to: "bob@example.org"}.strip(t, readOne(t, s.maildir("bob")))
			if got != want {
				t.Errorf("stored %.300q, want %.300q (%d octets, want %d)", got, want, len(got), len(want))
			}
		})
	}
	if left := stateEntries(t, s.state); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// The same message with newlines = "crlf" is stored as it came.
func TestContentCRLF(t *testing.T) {
	s := newSite(t, "bob")
	s.agent.Spool.CRLF, s.agent.Trace.CRLF = true, true
	s.start(t)
	body := "Subject: x\r\n\r\na\nb\rc\r\r\n.\r\n"
	wantReplies(t, s.client(t).Send("", []string{"bob@example.org"}, body, 1), "250 2.0.0")
	stored := readOne(t, s.maildir("bob"))
	if !strings.HasPrefix(stored, "Return-Path: <>\r\nDelivered-To: bob@example.org\r\nReceived: ") || !strings.HasSuffix(stored, "\r\n"+body) {
		t.Errorf("stored %q", stored)
	}
}

// TestLargeMessage: 20 MiB pass through the spool file to two mailboxes.
func TestLargeMessage(t *testing.T) {
	s := newSite(t, "bob", "ann").start(t)
	body := "Subject: large\r\n\r\n" + strings.Repeat(".a line that begins with a dot\r\n", 1000) +
		strings.Repeat("0123456789 0123456789 0123456789 0123456789 0123456789 012345\r\n", 20<<20/63)
	rcpts := []string{"bob@example.org", "ann@example.org"}
	want := strings.ReplaceAll(body, "\r\n", "\n")
	for _, size := range []string{"", " SIZE=20971520"} {
		c := s.client(t)
		c.Cmd("250", "MAIL FROM:<ann@example.org>%s", size)
		for _, r := range rcpts {
			c.Cmd("250", "RCPT TO:<%s>", r)
		}
		c.Cmd("354", "DATA")
		c.Raw(dotStuffed(body))
		for range rcpts {
			c.Expect("250 2.0.0")
		}
		for _, user := range []string{"bob", "ann"} {
			got := trace{from: "ann@example.org", to: user + "@example.org"}.strip(t, readOne(t, s.maildir(user)))
			if got != want {
				t.Errorf("%s: %d octets differ from %d", user, len(got), len(want))
			}
		}
	}
	if left := stateEntries(t, s.state); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// TestMemory: what a message of 20 MiB takes of the heap does not depend on its size.
func TestMemory(t *testing.T) {
	s := newSite(t, "bob").start(t)
	chunk := bytes.Repeat([]byte("0123456789 0123456789 0123456789\r\n"), 1000)
	send := func(lines int) {
		c := s.client(t)
		c.Cmd("250", "MAIL FROM:<>")
		c.Cmd("250", "RCPT TO:<bob@example.org>")
		c.Cmd("354", "DATA")
		c.Raw("Subject: large\r\n\r\n")
		for range lines {
			if _, err := c.Conn().Write(chunk); err != nil {
				t.Fatal(err)
			}
		}
		c.Raw(".\r\n")
		c.Expect("250")
		c.Cmd("221", "QUIT")
		c.Close()
	}
	send(20) // whatever is allocated once
	send(20)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // garbage counts too
	before := heap()
	send(20 << 20 / 34_000)
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("a message of 20 MiB has allocated %d KiB", grown>>10)
	}
}

// heap is how many octets have been allocated, whether they are in use or not.
func heap() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// Messages that pass at the same time use pooled buffers: none may see another's.
func TestMessagesStayApart(t *testing.T) {
	var users []string
	for i := range 16 {
		users = append(users, "user"+string(rune('a'+i)))
	}
	s := newSite(t, users...).start(t)
	var wg sync.WaitGroup
	for i, u := range users {
		c := s.client(t)
		wg.Go(func() {
			body := "Subject: x\r\n\r\n" + strings.Repeat(u+"\r\n", 50*(i+1)*(i+1))
			for range 5 {
				c.Send("", []string{u + "@example.org"}, body, 1)
			}
		})
	}
	wg.Wait()
	for i, u := range users {
		messages := read(t, s.maildir(u))
		if len(messages) != 5 {
			t.Errorf("%s has %d messages", u, len(messages))
		}
		for _, m := range messages {
			if got := (trace{to: u + "@example.org"}).strip(t, m); got != "Subject: x\n\n"+strings.Repeat(u+"\n", 50*(i+1)*(i+1)) {
				t.Errorf("%s got %.100q", u, got)
			}
		}
	}
}

// TestSubmit: a message that does not come from the protocol.
func TestSubmit(t *testing.T) {
	s := newSite(t, "bob", "ann")
	out, err := s.agent.Submit(context.Background(),
		Envelope{From: "me@example.org", Rcpts: []string{"bob@example.org", "who@example.org", "ann+x@example.org", "bob@example.org", "a@b@c"}, By: "from userid 7)\nX: y"},
		strings.NewReader("Subject: x\n\nhello"))
	if err != nil {
		t.Fatal(err)
	}
	var replies []string
	for _, o := range out {
		replies = append(replies, o.Reply.Error())
	}
	wantReplies(t, replies, "250 2.0.0 OK ", "550 5.1.1 ", "250 2.0.0 OK ", "250 2.0.0 OK ", "501 5.1.3 ")
	if !out[3].Duplicate || out[3].File != out[0].File {
		t.Errorf("%+v is no duplicate of %+v", out[3], out[0])
	}
	for _, user := range []string{"bob", "ann"} {
		if m := readOne(t, s.maildir(user)); !strings.HasSuffix(m, "\nSubject: x\n\nhello") || strings.Contains(m, "\nX: y") {
			t.Errorf("%s got %q", user, m)
		}
	}
	if got := len(s.reported()); got != len(out) {
		t.Errorf("%d outcomes were reported", got)
	}

	// A body that cannot be read delivers nothing to anybody.
	out, err = s.agent.Submit(context.Background(), Envelope{Rcpts: []string{"bob@example.org"}}, &pieces{err: os.ErrClosed})
	if err == nil || out != nil {
		t.Errorf("got %v, %v", out, err)
	}
	s.agent.Spool = Spool{Dir: filepath.Join(s.dir, "none"), Memory: -1}
	if _, err = s.agent.Submit(context.Background(), Envelope{Rcpts: []string{"bob@example.org"}}, bytes.NewReader([]byte("A: b\n\n"))); err == nil {
		t.Error("a state directory that is missing")
	}
	if left := files(t, s.dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What a client of SMTP sends says so in the trace.
func TestSMTPMessage(t *testing.T) {
	s := newSite(t, "bob").start(t)
	c := s.smtpClient(t)
	wantReplies(t, c.Send("ann@example.org", []string{"bob@example.org"}, "A: b\r\n\r\n", 1), "250 2.0.0 OK ")
	trace{from: "ann@example.org", to: "bob@example.org", with: "ESMTP"}.strip(t, readOne(t, s.maildir("bob")))
}

func TestUTF8Message(t *testing.T) {
	s := newSite(t, "jürgen").start(t)
	c := s.client(t)
	c.Cmd("250", "MAIL FROM:<änn@exämple.org> SMTPUTF8")
	c.Cmd("250", "RCPT TO:<Jürgen@example.org> ORCPT=utf-8;jürgen@alias.example")
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff("Subject: ü\r\n\r\nü\r\n"))
	c.Expect("250 2.0.0")
	got := trace{from: "änn@exämple.org", orig: "jürgen@alias.example", to: "Jürgen@example.org", with: "UTF8LMTP"}.strip(t, readOne(t, s.maildir("jürgen")))
	if got != "Subject: ü\n\nü\n" {
		t.Errorf("stored %q", got)
	}
	if !slices.ContainsFunc(s.reported(), func(o Outcome) bool { return o.To == "Jürgen@example.org" && o.OrigTo == "jürgen@alias.example" }) {
		t.Error("no such outcome")
	}
}
