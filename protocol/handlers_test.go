package protocol_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// serveQuietly starts an LMTP server on a Unix socket that logs nothing.
func serveQuietly(t *testing.T, h protocol.Handler) *protocoltest.Server {
	t.Helper()
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, h)
	srv.Config.Log = quiet
	srv.StartUnix()
	t.Cleanup(srv.Close)
	return srv
}

func isList(r *protocol.Recipient) bool { return strings.HasPrefix(r.Path.Local, "list") }

// byName settles recipients as their names say.
func byName(tx *protocol.Transaction, i int) protocol.Reply {
	switch name := tx.Rcpts[i].Path.Local; {
	case strings.HasSuffix(name, "full"):
		return protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "full")
	case strings.HasSuffix(name, "gone"):
		return protocol.Replyf(550, protocol.Enhanced{5, 2, 1}, "gone")
	}
	return protocol.Reply{}
}

func wantReplies(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("replies %q, want %q", got, want)
	}
}

// TestSplit: each recipient has the outcome that its own handler gave it, duplicates
// included, and the message arrives at both, whole, however large.
func TestSplit(t *testing.T) {
	lists, rest := protocoltest.NewRecorder(), protocoltest.NewRecorder()
	lists.Reply, rest.Reply = byName, byName
	srv := serveQuietly(t, protocol.Split(isList, lists, rest))
	c := srv.Dial(t)
	c.Hello("LHLO")
	large := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 40000)
	for n, body := range []string{"Subject: x\r\n\r\n.dot\r\n", large, ""} {
		wantReplies(t, c.Send("a@example.org", []string{"bob", "list", "gone", "list-full", "bob", "list"}, body, 6), []string{
			"250 2.0.0 OK", "250 2.0.0 OK", "550 5.2.1 gone", "452 4.2.2 full", "250 2.0.0 OK", "250 2.0.0 OK",
		})
		l, r := lists.Messages()[n], rest.Messages()[n]
		if !slices.Equal(l.Rcpts, []string{"list", "list-full", "list"}) || !slices.Equal(r.Rcpts, []string{"bob", "gone", "bob"}) {
			t.Errorf("recipients %q and %q", l.Rcpts, r.Rcpts)
		}
		if string(l.Body) != body || string(r.Body) != body {
			t.Errorf("bodies of %d and %d octets, want %d", len(l.Body), len(r.Body), len(body))
		}
		if l.From != "a@example.org" || l.With != "LMTP" {
			t.Errorf("list message from %q with %q", l.From, l.With)
		}
	}
	// One handler alone gets the message as it arrives.
	wantReplies(t, c.Send("", []string{"list", "list-full"}, "x\r\n", 2), []string{"250 2.0.0 OK", "452 4.2.2 full"})
	wantReplies(t, c.Send("", []string{"gone"}, "x\r\n", 1), []string{"550 5.2.1 gone"})
	if l, r := len(lists.Messages()), len(rest.Messages()); l != 4 || r != 4 {
		t.Errorf("%d and %d messages, want 4 each", l, r)
	}
}

// TestSplitStreams: a recipient's reply does not wait for the other handler's.
func TestSplitStreams(t *testing.T) {
	release := make(chan struct{})
	slow := protocol.HandlerFunc(func(context.Context, *protocol.Transaction, *protocol.Body) error { <-release; return nil })
	srv := serveQuietly(t, protocol.Split(isList, slow, protocol.Discard))
	c := srv.Dial(t)
	c.Hello("LHLO")
	if r := c.Send("a@example.org", []string{"bob", "list", "bob"}, "x\r\n", 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("reply %q", r[0])
	}
	close(release)
	c.Expect("250 2.0.0 OK")
	c.Expect("250 2.0.0 OK")
}

// TestBranchFails: what goes wrong in one handler is that handler's recipients' alone.
func TestBranchFails(t *testing.T) {
	var late atomic.Pointer[protocol.Transaction]
	for name, c := range map[string]struct {
		h    protocol.HandlerFunc
		want string
	}{
		"error": {func(context.Context, *protocol.Transaction, *protocol.Body) error { return errors.New("on fire") }, "451 4.3.0"},
		"reply": {func(context.Context, *protocol.Transaction, *protocol.Body) error {
			return protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "no")
		}, "550 5.7.1 no"},
		"panic":    {func(context.Context, *protocol.Transaction, *protocol.Body) error { panic("as the test asked for") }, "451 4.3.0"},
		"bad code": {func(context.Context, *protocol.Transaction, *protocol.Body) error { return protocol.Reply{Code: 354} }, "451 4.3.0"},
		"partly": {func(_ context.Context, tx *protocol.Transaction, _ *protocol.Body) error {
			tx.Settle(0, protocol.Replyf(550, protocol.Enhanced{5, 2, 1}, "gone"))
			if tx.Settle(0, protocol.Reply{}) != protocol.ErrSettled || tx.Settle(1, protocol.Reply{}) != protocol.ErrNoRcpt {
				t.Error("Settle of a part takes too much")
			}
			late.Store(tx)
			return errors.New("on fire")
		}, "550 5.2.1 gone"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serveQuietly(t, protocol.Split(isList, c.h, protocol.Discard))
			client := srv.Dial(t)
			client.Hello("LHLO")
			r := client.Send("a@example.org", []string{"bob", "list"}, "x\r\n", 2)
			if r[0] != "250 2.0.0 OK" || !strings.HasPrefix(r[1], c.want) {
				t.Errorf("replies %q, want %s for the second", r, c.want)
			}
			client.Cmd("221", "QUIT")
		})
	}
	if err := late.Load().Settle(0, protocol.Reply{}); err != protocol.ErrTooLate {
		t.Errorf("Settle after the end: %v", err)
	}
}

// TestHandlersRefused: a message that the server refuses reaches no handler that
// waits for its end.
func TestHandlersRefused(t *testing.T) {
	rec := protocoltest.NewRecorder()
	var printed bytes.Buffer
	for name, h := range map[string]protocol.Handler{
		"Split": protocol.Split(isList, rec, rec), "Fanout": protocol.Fanout(rec, rec), "Debug": protocol.Debug(&printed),
		"PerRecipient": protocol.PerRecipient(func(context.Context, *protocol.Transaction, int, *io.SectionReader) protocol.Reply {
			t.Error("called")
			return protocol.Reply{}
		}, 2),
		"Parsed": protocol.Parsed(func(_ context.Context, m *mail.Message, _ *protocol.Transaction) error {
			if _, err := io.ReadAll(m.Body); !errors.Is(err, protocol.ErrFault) {
				t.Errorf("Parsed: end of the body: %v", err)
			}
			return nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			srv := protocoltest.NewUnstartedServer(protocol.LMTP, h)
			srv.Config.Limits.MessageSize = 1000
			srv.StartUnix()
			defer srv.Close()
			c := srv.Dial(t)
			c.Hello("LHLO")
			for _, r := range c.Send("", []string{"bob", "list"}, "A: b\r\n\r\n"+strings.Repeat("x\r\n", 500), 2) {
				if !strings.HasPrefix(r, "552 5.3.4 ") {
					t.Errorf("reply %q", r)
				}
			}
		})
	}
	if len(rec.Messages()) != 0 || printed.Len() != 0 {
		t.Errorf("handed over: %v, %q", rec.Messages(), printed.String())
	}
}

func TestFanout(t *testing.T) {
	answer := func(code int) protocol.Handler {
		return protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			if b, err := io.ReadAll(body); err != nil || string(b) != "x\r\n" || body.Size() != 3 {
				t.Errorf("a reader got %q, %v", b, err)
			}
			tx.ID = "id"
			return tx.Settle(1, protocol.Reply{Code: code, Enhanced: protocol.Enhanced{uint16(code / 100), 9, 9}, Text: fmt.Sprint(code)})
		})
	}
	for _, c := range []struct {
		codes []int
		want  string
	}{
		{nil, "250 2.0.0 OK"}, {[]int{451}, "451 4.9.9 451"}, {[]int{250, 252}, "250 2.9.9 250"}, {[]int{250, 550}, "550 5.9.9 550"},
		{[]int{550, 250, 451}, "451 4.9.9 451"}, {[]int{451, 550}, "451 4.9.9 451"}, {[]int{550, 554}, "550 5.9.9 550"},
	} {
		var hs []protocol.Handler
		for _, code := range c.codes {
			hs = append(hs, answer(code))
		}
		client := serveQuietly(t, protocol.Fanout(hs...)).Dial(t)
		client.Hello("LHLO")
		first := "250 2.0.0 OK"
		if hs != nil {
			first += " queued as id"
		}
		wantReplies(t, client.Send("", []string{"a", "b"}, "x\r\n", 2), []string{first, c.want})
	}
}

func TestPerRecipient(t *testing.T) {
	for _, parallel := range []int{0, 1, 3, 100} {
		var calls atomic.Int32
		srv := serveQuietly(t, protocol.PerRecipient(func(_ context.Context, tx *protocol.Transaction, i int, m *io.SectionReader) protocol.Reply {
			calls.Add(1)
			if b, err := io.ReadAll(m); err != nil || string(b) != "hello\r\n" {
				t.Errorf("got %q, %v", b, err)
			}
			switch tx.Rcpts[i].Path.Local {
			case "bug":
				panic("as the test asked for")
			case "nonsense":
				return protocol.Reply{Code: 354}
			}
			return byName(tx, i)
		}, parallel))
		c := srv.Dial(t)
		c.Hello("LHLO")
		wantReplies(t, c.Send("", []string{"bob", "full", "bug", "nonsense", "gone", "bob"}, "hello\r\n", 6), []string{
			"250 2.0.0 OK", "452 4.2.2 full", "451 4.3.0 Error: temporary internal failure", "451 4.3.0 Error: temporary internal failure",
			"550 5.2.1 gone", "250 2.0.0 OK",
		})
		if n := calls.Load(); n != 6 {
			t.Errorf("%d calls", n)
		}
	}
}

func TestParsed(t *testing.T) {
	var got string
	srv := serveQuietly(t, protocol.Parsed(func(_ context.Context, m *mail.Message, tx *protocol.Transaction) error {
		b, err := io.ReadAll(m.Body)
		got = fmt.Sprintf("%s|%s|%s|%s|%s", m.Header.Get("X-Peer"), m.Header.Get("X-MailFrom"), m.Header.Get("X-RcptTo"), m.Header.Get("Subject"), b)
		return err
	}))
	c := srv.Dial(t)
	c.Hello("LHLO")
	c.Send("ann@example.org", []string{"bob@example.org", "eve"}, "Subject: hi\r\nX-MailFrom: forged@example.net\r\nX-Peer: 192.0.2.1\r\n\r\nHello.\r\n", 2)
	if want := "local|ann@example.org|bob@example.org, eve|hi|Hello.\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := c.Send("", []string{"bob"}, "no header at all\r\n", 1); !strings.HasPrefix(r[0], "554 5.6.0 ") {
		t.Errorf("reply %q", r)
	}
	c.Cmd("221", "QUIT")
}

// TestOutsideOfASession: handlers can be called with a message that is there.
func TestOutsideOfASession(t *testing.T) {
	tx := &protocol.Transaction{Rcpts: []protocol.Recipient{{Path: protocol.Path{Local: "list", Raw: "list"}}, {Path: protocol.Path{Local: "bob", Raw: "bob"}}, {}}}
	var printed bytes.Buffer
	broken := protocol.HandlerFunc(func(context.Context, *protocol.Transaction, *protocol.Body) error { panic("as the test asked for") })
	h := protocol.Split(isList, broken, protocol.Fanout(protocol.Debug(&printed), protocol.HandlerFunc(
		func(_ context.Context, tx *protocol.Transaction, _ *protocol.Body) error {
			return tx.Settle(1, protocol.Reply{Code: 552})
		})))
	if err := h.Deliver(context.Background(), tx, protocol.NewBody(strings.NewReader("A: b\n\nc"))); err != nil {
		t.Fatal(err)
	}
	r := tx.Results()
	if r[0].Code != 451 || r[1].Code != 250 || r[2].Code != 552 {
		t.Errorf("results %v", r)
	}
	if want := "---------- MESSAGE FOLLOWS ----------\nA: b\nX-Peer: local\n\nc\n------------ END MESSAGE ------------\n"; printed.String() != want {
		t.Errorf("printed %q", printed.String())
	}
	if err := protocol.Fanout(protocol.Discard, protocol.Discard).Deliver(context.Background(), &protocol.Transaction{}, protocol.NewBody(iotestErr{})); err != io.ErrUnexpectedEOF {
		t.Errorf("error of the body: %v", err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestPerRecipientSideBySide: as many at once as was asked for, and no more.
func TestPerRecipientSideBySide(t *testing.T) {
	const parallel, rcpts = 3, 6
	var now, most atomic.Int32
	var once sync.Once
	together := make(chan struct{})
	h := protocol.PerRecipient(func(ctx context.Context, _ *protocol.Transaction, _ int, _ *io.SectionReader) protocol.Reply {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == parallel {
			once.Do(func() { close(together) })
		}
		await(ctx, together)
		return protocol.Reply{}
	}, parallel)
	c := serveQuietly(t, h).Dial(t)
	c.Hello("LHLO")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Send("", []string{"a", "b", "c", "d", "e", "f"}[:rcpts], "x\r\n", rcpts)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("they wait for one another")
	}
	if n := most.Load(); n != parallel {
		t.Errorf("%d at once", n)
	}
}
