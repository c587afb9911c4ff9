package protocol_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

func readAll(body *protocol.Body) error {
	_, err := body.WriteTo(io.Discard)
	return err
}

// await waits for the test, or for its end.
func await(ctx context.Context, c <-chan struct{}) {
	select {
	case <-c:
	case <-ctx.Done():
	}
}

// lmtp starts a server with a handler and gives a client that has greeted it.
func lmtp(t *testing.T, h protocol.HandlerFunc) *protocoltest.Client {
	t.Helper()
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, h)
	srv.Config.Log = quiet
	srv.StartUnix()
	t.Cleanup(srv.Close)
	c := srv.Dial(t)
	c.Hello("LHLO")
	return c
}

// envelope sends MAIL and n RCPTs, DATA, and a message.
func envelope(c *protocoltest.Client, n int) {
	c.Cmd("250", "MAIL FROM:<a@example.org>")
	for i := range n {
		c.Cmd("250", "RCPT TO:<r%d@example.org>", i)
	}
	c.Cmd("354", "DATA")
	c.Raw("x\r\n.\r\n")
}

// TestReplyBeforeTheNext: the reply of a recipient that is settled can be read while
// the next one is still being worked on (RFC 2033 section 4.2).
func TestReplyBeforeTheNext(t *testing.T) {
	goOn := make(chan struct{})
	c := lmtp(t, func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		if err := readAll(body); err != nil {
			return err
		}
		for i := range tx.Rcpts {
			tx.Settle(i, protocol.Replyf(250, protocol.Enhanced{}, "r%d", i))
			await(ctx, goOn)
		}
		return nil
	})
	envelope(c, 4)
	for i := range 4 {
		c.Expect(fmt.Sprintf("250 2.0.0 r%d", i))
		goOn <- struct{}{}
	}
	c.Cmd("250", "NOOP")
}

// TestReplyOrder: recipients settled backwards are answered forwards, and none before
// the first is settled.
func TestReplyOrder(t *testing.T) {
	goOn := make(chan struct{})
	c := lmtp(t, func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		if err := readAll(body); err != nil {
			return err
		}
		for i := len(tx.Rcpts) - 1; i > 0; i-- {
			tx.Settle(i, protocol.Replyf(250, protocol.Enhanced{}, "r%d", i))
		}
		await(ctx, goOn)
		tx.Settle(0, protocol.Replyf(450, protocol.Enhanced{}, "r0"))
		await(ctx, goOn) // all four must be readable now
		return nil
	})
	envelope(c, 4)
	goOn <- struct{}{}
	c.Expect("450 4.0.0 r0")
	for i := 1; i < 4; i++ {
		c.Expect(fmt.Sprintf("250 2.0.0 r%d", i))
	}
	goOn <- struct{}{}
}

// TestSettleBeforeTheEnd: results given while data arrives are kept until its end,
// and are void when the message turns out to be bad.
func TestSettleBeforeTheEnd(t *testing.T) {
	settled := make(chan struct{})
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, protocol.HandlerFunc(
		func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			tx.Settle(0, protocol.Reply{})
			tx.Settle(1, protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "no"))
			select {
			case settled <- struct{}{}:
			case <-ctx.Done():
			}
			return readAll(body)
		}))
	srv.Config.Limits.MessageSize = 10
	srv.StartUnix()
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	for _, body := range []string{"x\r\n", "much too long\r\n"} {
		c.Cmd("250", "MAIL FROM:<a@example.org>")
		c.Cmd("250", "RCPT TO:<b@example.org>")
		c.Cmd("250", "RCPT TO:<c@example.org>")
		c.Cmd("354", "DATA")
		<-settled
		c.Raw(body + ".\r\n")
		if len(body) <= 10 {
			c.Expect("250 2.0.0")
			c.Expect("550 5.1.1 no")
		} else {
			c.Expect("552 5.3.4")
			c.Expect("552 5.3.4")
		}
	}
}

// TestSettleFromMany: 200 recipients settled by as many goroutines.
func TestSettleFromMany(t *testing.T) {
	const n = 200
	c := lmtp(t, func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		var wg sync.WaitGroup
		defer wg.Wait()
		for i := range tx.Rcpts {
			wg.Go(func() {
				if err := tx.Settle(i, protocol.Replyf(250, protocol.Enhanced{}, "r%d", i)); err != nil {
					t.Errorf("settle %d: %v", i, err)
				}
			})
		}
		return readAll(body) // some settle before the end of the data, some after
	})
	for range 3 {
		envelope(c, n)
		for i := range n {
			c.Expect(fmt.Sprintf("250 2.0.0 r%d", i))
		}
	}
	c.Cmd("250", "NOOP")
}

func TestSettleMisuse(t *testing.T) {
	late := make(chan *protocol.Transaction, 1)
	c := lmtp(t, func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		if err := readAll(body); err != nil {
			return err
		}
		for _, i := range []int{-1, 2, 1 << 40} {
			if err := tx.Settle(i, protocol.Reply{}); !errors.Is(err, protocol.ErrNoRcpt) {
				t.Errorf("settle %d: %v", i, err)
			}
		}
		for _, code := range []int{1, 354, 600, -1} {
			if err := tx.Settle(0, protocol.Reply{Code: code}); err == nil {
				t.Errorf("code %d was taken", code)
			}
		}
		if err := tx.Settle(0, protocol.Reply{}); err != nil {
			t.Errorf("settle: %v", err)
		}
		if err := tx.Settle(0, protocol.Replyf(550, protocol.Enhanced{}, "no")); !errors.Is(err, protocol.ErrSettled) {
			t.Errorf("second settle: %v", err)
		}
		if r := tx.Results(); len(r) != 2 || r[0].Code != 250 || r[1].Code != 0 {
			t.Errorf("results %v", r)
		}
		late <- tx
		return errors.New("a secret path")
	})
	envelope(c, 2)
	c.Expect("250 2.0.0 OK")
	if got := c.Expect("451 4.3.0"); strings.Contains(got, "secret") {
		t.Errorf("the reply tells %q", got)
	}
	c.Cmd("250", "NOOP")
	tx := <-late
	if err := tx.Settle(1, protocol.Reply{}); !errors.Is(err, protocol.ErrTooLate) {
		t.Errorf("late settle: %v", err)
	}
	if r := tx.Results(); len(r) != 2 || r[0].Code != 250 || r[1].Code != 451 {
		t.Errorf("results at the end: %v", r)
	}
}

// TestHandlerReturns: what a handler may return, and what it means for those that it
// has not settled.
func TestHandlerReturns(t *testing.T) {
	results := make(chan error, 1)
	c := lmtp(t, func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		if err := readAll(body); err != nil {
			return err
		}
		tx.Settle(1, protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "full"))
		return <-results
	})
	for _, x := range []struct {
		err  error
		want string
	}{
		{nil, "250 2.0.0 OK"},
		{protocol.Replyf(250, protocol.Enhanced{}, "queued as 1"), "250 2.0.0 queued as 1"},
		{protocol.Replyf(554, protocol.Enhanced{5, 6, 0}, "no"), "554 5.6.0 no"},
		{fmt.Errorf("wrapped: %w", protocol.Replyf(450, protocol.Enhanced{4, 2, 0}, "later")), "450 4.2.0 later"},
		{protocol.Replyf(354, protocol.Enhanced{}, "go on"), "451 4.3.0"},
		{errors.New("anything"), "451 4.3.0"},
		{context.Canceled, "451 4.3.0"},
	} {
		results <- x.err
		envelope(c, 3)
		c.Expect(x.want)
		c.Expect("452 4.2.2 full")
		c.Expect(x.want)
	}
}

// TestBodyReads: Read and WriteTo, mixed, small and large, and Size.
func TestBodyReads(t *testing.T) {
	want := strings.Repeat("0123456789\r\n.dot\r\n", 20000)
	got := make(chan string, 1)
	c := lmtp(t, func(_ context.Context, _ *protocol.Transaction, body *protocol.Body) error {
		var b strings.Builder
		if n, err := body.Read(nil); n != 0 || err != nil {
			t.Errorf("empty read: %d, %v", n, err)
		}
		for range 50 {
			p := make([]byte, 7)
			n, err := body.Read(p)
			if err != nil {
				return err
			}
			b.Write(p[:n])
		}
		if n, err := body.WriteTo(&failAfter{&b, 5}); err == nil || n == 0 {
			t.Errorf("a failing writer: %d, %v", n, err)
		}
		if _, err := body.WriteTo(&b); err != nil {
			return err
		}
		if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read past the end: %d, %v", n, err)
		}
		if body.Size() != int64(len(want)) {
			t.Errorf("size %d, want %d", body.Size(), len(want))
		}
		got <- b.String()
		return nil
	})
	if r := c.Send("", []string{"b@example.org"}, want, 1); r[0] != "250 2.0.0 OK" {
		t.Fatalf("reply %q", r)
	}
	if s := <-got; s != want {
		t.Errorf("content of %d octets differs from the %d sent", len(s), len(want))
	}
}

// failAfter takes n octets of a write and then fails.
type failAfter struct {
	w io.Writer
	n int
}

func (f *failAfter) Write(p []byte) (int, error) {
	n, _ := f.w.Write(p[:min(f.n, len(p))])
	return n, errors.New("no more")
}
