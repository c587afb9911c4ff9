package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/relay"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

const text = "Subject: hello\n\nHello.\n..\n. x\r\nend"
const wire = "Subject: hello\r\n\r\nHello.\r\n..\r\n. x\r\nend\r\n"

func parcel(from string, rcpts ...string) *delivery.Parcel {
	return parcelOf(text, from, rcpts...)
}

func parcelOf(text, from string, rcpts ...string) *delivery.Parcel {
	p := &delivery.Parcel{ID: "id", From: from, Size: int64(len(text)), WireSize: int64(len(text) + strings.Count(text, "\n"))}
	p.Open = func() io.Reader { return strings.NewReader(text) }
	for _, r := range rcpts {
		p.Rcpts = append(p.Rcpts, delivery.ParcelRcpt{Address: r})
	}
	return p
}

// deliver gives the outcome of each recipient by its index, as a text.
func deliver(t *testing.T, r *relay.Relay, p *delivery.Parcel) []string {
	t.Helper()
	return deliverCtx(t.Context(), t, r, p)
}

func deliverCtx(ctx context.Context, t *testing.T, r *relay.Relay, p *delivery.Parcel) []string {
	t.Helper()
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	if r.Hello == "" {
		r.Hello = "front.example.org"
	}
	got := make([]string, len(p.Rcpts))
	r.Deliver(ctx, p, func(i int, h delivery.Handover) {
		if got[i] != "" {
			t.Errorf("%d is settled twice", i)
		}
		switch {
		case h.Err == nil && h.Reply.OK():
			got[i] = "ok " + h.Reply.Text
		case h.Reply.Code != 0:
			got[i] = h.Reply.Error()
		default:
			got[i] = h.Err.Error()
		}
		for _, known := range []error{delivery.ErrBroken, delivery.ErrUnreachable, delivery.ErrUnsafe, delivery.ErrMisconfigured, delivery.ErrBusy} {
			if errors.Is(h.Err, known) && h.Reply.Code == 0 {
				got[i] = known.Error() + "|" + got[i]
				break
			}
		}
	})
	if i := slices.Index(got, ""); i >= 0 {
		t.Fatalf("%d was not settled", i)
	}
	return got
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%q, want %d", got, len(want))
	}
	for i := range got {
		if prefix, ok := strings.CutSuffix(want[i], "*"); ok && strings.HasPrefix(got[i], prefix) || got[i] == want[i] {
			continue
		}
		t.Errorf("%d: %q, want %q", i, got[i], want[i])
	}
}

func hostOf(s *protocoltest.Server) relay.Host { return relay.Host{Network: s.Network, Addr: s.Addr} }

// sessions counts those of a server.
func sessions(s *protocoltest.Server) *atomic.Int32 {
	n := new(atomic.Int32)
	s.Config.Policy = protocol.Chain(s.Config.Policy, protocol.Policy{Connect: func(context.Context, *protocol.Session) protocol.Reply {
		n.Add(1)
		return protocol.Reply{}
	}})
	return n
}

// One connection serves one message after the other, over either kind of socket, and
// each recipient has its own reply.
func TestLMTP(t *testing.T) {
	var seen []string
	handler := protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		b, err := io.ReadAll(body)
		seen = append(seen, fmt.Sprintf("<%s> %d %s %s", tx.From.Raw, tx.Mail.Size, tx.Mail.Body, b))
		for i, r := range tx.Rcpts {
			switch r.Path.Local {
			case "full":
				tx.Settle(i, protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "Mailbox is full"))
			case "bad":
				tx.Settle(i, protocol.Replyf(554, protocol.Enhanced{5, 7, 1}, "No\nthanks"))
			default:
				tx.Settle(i, protocol.Replyf(250, protocol.Enhanced{2, 0, 0}, "kept for %s", r.Path.Local))
			}
		}
		return err
	})
	for _, unix := range []bool{true, false} {
		seen = nil
		s := protocoltest.NewUnstartedServer(protocol.LMTP, handler)
		s.Config.Newlines = protocol.NewlinesPreserve
		n := sessions(s)
		s.Config.Policy = protocol.Chain(s.Config.Policy, protocol.Policy{Rcpt: func(_ context.Context, _ *protocol.Transaction, r *protocol.Recipient) protocol.Reply {
			if r.Path.Local == "unknown" {
				return protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "User unknown")
			}
			return protocol.Reply{}
		}})
		if unix {
			s.StartUnix()
		} else {
			s.Start()
		}
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(s)}}
		for i := range 3 {
			p := parcel("", "a@example.org", "unknown@example.org", "full@example.org", "a@example.org", "bad@example.org")
			p.Mail.Body = protocol.Body8BitMIME
			want(t, deliver(t, r, p), "ok kept for a", "550 5.1.1 User unknown", "452 4.2.2 Mailbox is full", "ok kept for a", "554 5.7.1 No thanks")
			want(t, deliver(t, r, parcel("x", "unknown@example.org")), "550 5.1.1 User unknown")
			if len(seen) != i+1 || seen[i] != fmt.Sprintf("<> %d 8BITMIME %s", p.WireSize, wire) {
				t.Errorf("%q", seen)
			}
		}
		if n.Load() != 1 {
			t.Errorf("%d connections", n.Load())
		}
		r.CloseIdle()
		s.Close()
	}
}

const hello = "> 220 here\n< LHLO front.example.org\n> 250-me\\n250-SIZE 1000\\n250 ENHANCEDSTATUSCODES\n"

func TestPeers(t *testing.T) {
	mail := hello + "< MAIL FROM:<> SIZE=\n> 250 2.1.0 ok\n"
	for name, test := range map[string]struct {
		dialog string
		want   []string
	}{
		"codes": {mail + `< RCPT
			> 550 5.1.1 no
			< RCPT
			> 450 later
			< RCPT
			> 250 ok
			< DATA
			> 354 go
			<data
			> 250-2.0.0 two\n250 2.0.0 lines
			< QUIT`, []string{"550 5.1.1 no", "450 4.0.0 later", "ok two lines"}},
		"a class that is not that of the code": {mail + `< RCPT
			> 550 4.1.1 no
			< RCPT
			> 552 x.y.z
			< RCPT
			> 553 5.7.1000 no`, []string{"550 5.0.0 4.1.1 no", "552 5.0.0 x.y.z", "553 5.0.0 5.7.1000 no"}},
		"nobody is left": {mail + `< RCPT
			> 550 5.1.1 no
			< RCPT
			> 550 5.1.1 no
			< RCPT
			> 554 5.1.1 ` + "n\x1b[2J\xff" + `o`, []string{"550 5.1.1 no", "550 5.1.1 no", "554 5.1.1 n?[2J?o"}},
		"wants TLS":           {hello + "< MAIL\n> 530 5.7.0 Must issue a STARTTLS command first", []string{"transport is misconfigured|*", "transport is misconfigured|*", "transport is misconfigured|*"}},
		"wants a login":       {mail + "< RCPT\n> 535 5.7.8 who?\n< RCPT\n> 503 5.5.1 login first\n< RCPT\n> 502 what?", []string{"transport is misconfigured|*", "unix:*", "unix:*"}},
		"sender refused":      {hello + "< MAIL\n> 553 5.1.8 not you", []string{"553 5.1.8 not you", "553 5.1.8 not you", "553 5.1.8 not you"}},
		"sender deferred":     {hello + "< MAIL\n> 451 4.3.0 not now", []string{"451 4.3.0 not now", "451 4.3.0 not now", "451 4.3.0 not now"}},
		"421 before the data": {mail + "< RCPT\n> 421 4.3.2 bye", []string{"next server cannot be reached|*", "next server cannot be reached|*", "next server cannot be reached|*"}},
		"421 after the data": {mail + "< RCPT\n> 250 ok\n< RCPT\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data\n> 250 one\n> 421 4.3.2 bye",
			[]string{"ok one", "451 4.3.2 bye", "next server did not answer|*"}},
		"data refused": {mail + "< RCPT\n> 250 ok\n< RCPT\n> 250 ok\n< RCPT\n> 550 no\n< DATA\n> 554 5.7.1 not this", []string{"554 5.7.1 not this", "554 5.7.1 not this", "550 5.0.0 no"}},
		"gone in the replies": {mail + "< RCPT\n> 250 ok\n< RCPT\n> 550 no\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data\n> 250 one",
			[]string{"ok one", "550 5.0.0 no", "next server did not answer|*"}},
		"gone before the replies": {mail + "< RCPT\n> 250 ok\n< RCPT\n> 250 no\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data",
			[]string{"next server did not answer|*", "next server did not answer|*", "next server did not answer|*"}},
		"nonsense after the data": {mail + "< RCPT\n> 250 ok\n< RCPT\n> 250 no\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data\n> 354 more\n> 250 x\n> 250 x",
			[]string{"next server did not answer|*", "next server did not answer|*", "next server did not answer|*"}},
		"greeting":         {"> 554 5.3.2 no mail here", []string{"next server cannot be reached|*", "next server cannot be reached|*", "next server cannot be reached|*"}},
		"no greeting":      {"> hello", []string{"next server cannot be reached|*", "next server cannot be reached|*", "next server cannot be reached|*"}},
		"hello":            {"> 220 x\n< LHLO\n> 500 what?", []string{"next server cannot be reached|*", "next server cannot be reached|*", "next server cannot be reached|*"}},
		"an endless reply": {"> 220-" + strings.Repeat("x", 5000), []string{"next server cannot be reached|*", "next server cannot be reached|*", "next server cannot be reached|*"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, test.dialog)
			r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{s.Host}}
			got := deliver(t, r, parcel("", "a@example.org", "b@example.org", "c@example.org"))
			want(t, got, test.want...)
			r.CloseIdle()
		})
	}
}

// SMTP has one reply for all recipients that were accepted; an old server wants HELO.
func TestSMTP(t *testing.T) {
	for end, outcome := range map[string]string{"250 2.0.0 queued as X": "ok queued as X", "451 4.3.0 later": "451 4.3.0 later", "554 no": "554 5.0.0 no"} {
		s := newScript(t, `> 220 here
			< EHLO
			> 502 what?
			< HELO front.example.org
			> 250 me
			< MAIL FROM:<x@example.org>
			> 250 ok
			< RCPT TO:<a@example.org>
			> 251 ok
			< RCPT TO:<b@example.org>
			> 550 5.1.1 no
			< RCPT TO:<c@example.org>
			> 250 ok
			< DATA
			> 354 go
			<data
			> `+end)
		r := &relay.Relay{Mode: protocol.SMTP, Hosts: []relay.Host{s.Host}}
		want(t, deliver(t, r, parcel("x@example.org", "a@example.org", "b@example.org", "c@example.org")), outcome, "550 5.1.1 no", outcome)
		r.CloseIdle()
		if s.data[0] != "Subject: hello\n\nHello.\n...\n.. x\nend\n" {
			t.Errorf("%q", s.data)
		}
	}
}

const takes = hello + "< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data\n> 250 2.0.0 taken\nhang"

// A pool: another host takes what the first one cannot; the one that failed is tried last.
func TestFailover(t *testing.T) {
	gone := relay.Host{Network: "unix", Addr: filepath.Join(t.TempDir(), "none")}
	for name, dialog := range map[string]string{
		"busy":                   "> 421 4.3.2 too many",
		"mute":                   "hang",
		"leaves after MAIL":      hello + "< MAIL",
		"leaves after DATA":      hello + "< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA",
		"421 to RCPT":            hello + "< MAIL\n> 250 ok\n< RCPT\n> 421 bye",
		"421 to DATA":            hello + "< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 421 bye",
		"leaves within the data": hello + "< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go",
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := newScript(t, dialog), newScript(t, takes)
			r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{gone, bad.Host, good.Host}, Connect: 200 * time.Millisecond}
			big := parcelOf("Subject: big\n\n"+strings.Repeat(strings.Repeat("x", 70)+"\n", 30_000), "", "a@example.org")
			want(t, deliver(t, r, big), "ok taken")
			if bad.conns != 1 || good.conns != 1 {
				t.Errorf("%d, %d", bad.conns, good.conns)
			}
			r.CloseIdle()
		})
	}
	t.Run("down", func(t *testing.T) {
		s := protocoltest.NewLMTPServer(protocol.Discard)
		defer s.Close()
		bad := newScript(t, "> 421 no", "> 421 no", "> 421 no")
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{bad.Host, hostOf(s)}, Down: time.Hour}
		defer r.CloseIdle()
		for range 5 {
			want(t, deliver(t, r, parcel("", "a@example.org")), "ok *")
		}
		if bad.conns != 1 {
			t.Errorf("tried %d times", bad.conns)
		}
	})
	t.Run("all down", func(t *testing.T) {
		bad := newScript(t, "> 421 no", "> 421 no")
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{gone, bad.Host}, Down: time.Hour}
		for range 2 {
			want(t, deliver(t, r, parcel("", "a@example.org")), "next server cannot be reached|*")
		}
		if bad.conns != 2 {
			t.Errorf("tried %d times", bad.conns)
		}
	})
	t.Run("in doubt", func(t *testing.T) {
		bad, good := newScript(t, hello+"< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data"), newScript(t, takes)
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{bad.Host, good.Host}}
		want(t, deliver(t, r, parcel("", "a@example.org")), "next server did not answer|*")
		if good.conns != 0 {
			t.Error("handed over twice")
		}
	})
	t.Run("in doubt, and the next message", func(t *testing.T) {
		bad, good := newScript(t, hello+"< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data\nhang", takes), newScript(t, takes)
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{bad.Host, good.Host}, Timeout: 100 * time.Millisecond}
		defer r.CloseIdle()
		wantConns := func(toBad, toGood int) {
			t.Helper()
			for s, n := range map[*script]int{bad: toBad, good: toGood} {
				s.mu.Lock()
				if s.conns != n {
					t.Errorf("%d connections, want %d", s.conns, n)
				}
				s.mu.Unlock()
			}
		}
		p := parcel("", "a@example.org")
		p.Sum = 2 // the first host first
		want(t, deliver(t, r, p), "next server did not answer|*")
		other := parcel("", "a@example.org")
		other.Sum = 4
		want(t, deliver(t, r, other), "ok taken")
		wantConns(1, 1)
		want(t, deliver(t, r, p), "ok taken") // where it may be already
		wantConns(2, 1)
	})
	// Where it may be is down when it comes again: another host would make two of it,
	// until nobody has heard of that one for too long.
	t.Run("in doubt, and down", func(t *testing.T) {
		bad, good := newScript(t, hello+"< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data", "> 421 no", takes), newScript(t, takes)
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{good.Host, bad.Host}, Down: time.Nanosecond, Doubt: time.Hour}
		defer r.CloseIdle()
		p := parcel("", "a@example.org")
		p.Sum = 3 // the second host first
		want(t, deliver(t, r, p), "next server did not answer|*")
		want(t, deliver(t, r, p), "next server cannot be reached|*")
		want(t, deliver(t, r, p), "ok taken")
		if good.conns != 0 {
			t.Error("handed over twice")
		}
	})
	t.Run("in doubt for too long", func(t *testing.T) {
		bad, good := newScript(t, hello+"< MAIL\n> 250 ok\n< RCPT\n> 250 ok\n< DATA\n> 354 go\n<data", "> 421 no"), newScript(t, takes)
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{bad.Host, good.Host}, Doubt: time.Nanosecond}
		defer r.CloseIdle()
		p := parcel("", "a@example.org")
		p.Sum = 2
		want(t, deliver(t, r, p), "next server did not answer|*")
		want(t, deliver(t, r, p), "ok taken")
	})
	t.Run("it comes again", func(t *testing.T) {
		first, second := protocoltest.NewLMTPServer(protocol.Discard), protocoltest.NewLMTPServer(protocol.Discard)
		defer first.Close()
		defer second.Close()
		r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(first), hostOf(second)}, Log: slog.New(slog.DiscardHandler), Hello: "x"}
		defer r.CloseIdle()
		targets := map[string]int{}
		for n := range 10 {
			p := parcel("", "a@example.org")
			p.Sum = 3
			if n > 4 {
				p.Sum = 0
			}
			r.Deliver(t.Context(), p, func(_ int, h delivery.Handover) { targets[h.Target]++ })
			if n == 4 && targets[hostOf(second).String()] != 5 {
				t.Error(targets)
			}
		}
		if targets[hostOf(first).String()] < 2 {
			t.Error(targets)
		}
	})
	t.Run("no host", func(t *testing.T) {
		want(t, deliver(t, &relay.Relay{}, parcel("", "a@example.org")), "transport is misconfigured|*")
	})
}

// A connection that was kept, and that the server has closed or closes now, is no fault.
func TestStale(t *testing.T) {
	first := strings.TrimSuffix(takes, "hang")
	for name, end := range map[string]string{"closed": "", "421": "> 421 4.4.2 idle\n", "reply": "< MAIL\n> 421 4.4.2 idle\n", "no reply": "< MAIL\n"} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, first+end, takes)
			r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{s.Host}}
			defer r.CloseIdle()
			for range 2 {
				want(t, deliver(t, r, parcel("", "a@example.org")), "ok taken")
			}
		})
	}
}

// No more connections than allowed, none that idle for longer than allowed, and a
// delivery that waits for one ends in time.
func TestBounds(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan bool)
	ended := make(chan bool, 10)
	s := protocoltest.NewUnstartedServer(protocol.LMTP, protocol.HandlerFunc(func(_ context.Context, _ *protocol.Transaction, body *protocol.Body) error {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		now.Add(-1)
		_, err := io.Copy(io.Discard, body)
		return err
	}))
	s.Config.Policy.Close = func(context.Context, *protocol.Session, error) { ended <- true }
	s.StartUnix()
	defer s.Close()
	r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(s)}, Connections: 2, Idle: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler), Hello: "front.example.org"}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() { want(t, deliver(t, r, parcel("", "a@example.org")), "ok *") })
	}
	for now.Load() != 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := deliverCtx(ctx, t, r, parcel("", "a@example.org"))
	want(t, got, "next server cannot be reached|*")
	slow := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(s)}, Timeout: 50 * time.Millisecond}
	want(t, deliver(t, slow, parcel("", "a@example.org")), "next server did not answer|*")
	for range 7 {
		release <- true
	}
	all.Wait()
	for range 3 {
		<-ended // of slow, and those that have idled too long
	}
	if most.Load() > 3 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestManyRecipients(t *testing.T) {
	rec := protocoltest.NewRecorder()
	s := protocoltest.NewLMTPServer(rec)
	defer s.Close()
	r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(s)}}
	defer r.CloseIdle()
	var rcpts []string
	for i := range 250 {
		rcpts = append(rcpts, fmt.Sprintf("u%d@example.org", i))
	}
	for i, got := range deliver(t, r, parcel("", rcpts...)) {
		if !strings.HasPrefix(got, "ok ") {
			t.Errorf("%d: %s", i, got)
		}
	}
	if m := rec.Messages(); len(m) != 3 || len(m[0].Rcpts) != 100 || len(m[2].Rcpts) != 50 {
		t.Errorf("%d messages", len(m))
	}
}

// What a message needs of the next server, and what that offers.
func TestExtensions(t *testing.T) {
	var tx *protocol.Transaction
	var body []byte
	s := protocoltest.NewUnstartedServer(protocol.LMTP, protocol.HandlerFunc(func(_ context.Context, x *protocol.Transaction, b *protocol.Body) (err error) {
		tx = x
		body, err = io.ReadAll(b)
		return err
	}))
	s.Config.Ext = protocol.DefaultExt | protocol.ExtDSN | protocol.ExtBinaryMIME | protocol.ExtChunking
	s.StartUnix()
	defer s.Close()
	r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{hostOf(s)}}
	defer r.CloseIdle()
	p := parcel("jürgen@example.org", "ä@example.org")
	p.Mail = protocol.MailParams{UTF8: true, Ret: "HDRS", EnvID: "a+b="}
	p.Rcpts[0].Notify = protocol.NotifyFailure | protocol.NotifyDelay
	p.Rcpts[0].ORcpt = "old+x@example.org"
	want(t, deliver(t, r, p), "ok *")
	if tx.From.Raw != p.From || !tx.Mail.UTF8 || tx.Mail.Ret != "HDRS" || tx.Mail.EnvID != "a+b=" ||
		tx.Rcpts[0].Notify != p.Rcpts[0].Notify || tx.Rcpts[0].ORcpt != "old+x@example.org" {
		t.Errorf("%+v %+v", tx.Mail, tx.Rcpts)
	}
	p = parcelOf("binary: yes\r\n\r\n\x00.\r\n.\n\r", "", "a@example.org")
	p.Mail.Body = protocol.BodyBinaryMIME
	want(t, deliver(t, r, p), "ok *")
	if string(body) != "binary: yes\r\n\r\n\x00.\r\n.\n\r" {
		t.Errorf("%q", body)
	}

	plain := newScript(t, takes)
	r = &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{plain.Host}}
	defer r.CloseIdle()
	want(t, deliver(t, r, p), plain.String()+": next server cannot take this message as it is: *")
	want(t, deliver(t, r, parcel("", "ä@example.org")), plain.String()+": next server has no SMTPUTF8")
	mixed := newScript(t, takes)
	other := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{mixed.Host}}
	defer other.CloseIdle()
	want(t, deliver(t, other, parcel("", "ä@example.org", "a@example.org")), mixed.String()+": next server has no SMTPUTF8", "ok taken")
	p = parcel("", "a@example.org")
	p.Mail.RequireTLS = true
	want(t, deliver(t, r, p), plain.String()+": next server has no REQUIRETLS")
	p = parcel("x@example.org", "a@example.org")
	p.Mail = protocol.MailParams{Body: protocol.Body8BitMIME, Ret: "FULL"}
	want(t, deliver(t, r, p), "ok taken")
}

// A pool whose hosts do not offer the same.
func TestMixedPool(t *testing.T) {
	full := strings.Replace(takes, "250-SIZE", `250-SMTPUTF8\n250-SIZE`, 1)
	if full == takes {
		t.Fatal("no SMTPUTF8")
	}
	p := parcel("", "ä@example.org")
	gone := relay.Host{Network: "unix", Addr: filepath.Join(t.TempDir(), "none")}
	for name, test := range map[string]struct {
		first, second string
		gone          bool
		want          string
	}{
		"the second":       {takes, full, false, "ok taken"},
		"none":             {takes, hello + "hang", false, "unix:*"},
		"one is not there": {takes, hello + "hang", true, "next server cannot be reached|*"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newScript(t, test.first, test.first), newScript(t, test.second, test.second)
			r := &relay.Relay{Mode: protocol.LMTP, Hosts: []relay.Host{a.Host, b.Host}}
			if test.gone {
				r.Hosts = append(r.Hosts, gone)
			}
			defer r.CloseIdle()
			p.Sum = uint64(6 * len(r.Hosts)) // the first host first
			got := deliver(t, r, p)
			want(t, got, test.want)
			if (strings.Count(got[0], delivery.ErrNoUTF8.Error()) == 2) != (test.want != "ok taken") {
				t.Error(got)
			}
			// Nothing is wrong with the first, and its connection is kept.
			plain := parcel("", "a@example.org")
			plain.Sum = p.Sum
			want(t, deliver(t, r, plain), "ok taken")
			if a.conns != 1 || len(a.data) != 1 {
				t.Errorf("the first has %d connections, %d messages", a.conns, len(a.data))
			}
		})
	}
}

// The host of a user record, and one that is this very program.
func TestRecordHost(t *testing.T) {
	s := protocoltest.NewUnstartedServer(protocol.LMTP, protocol.Discard)
	s.Start()
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Addr)
	var n int
	fmt.Sscan(port, &n)
	p := parcel("", "a@example.org")
	for _, host := range []string{"127.0.0.1", "localhost:" + port} {
		p.Host = host
		r := &relay.Relay{Mode: protocol.LMTP, Port: n}
		want(t, deliver(t, r, p), "ok *")
		r.CloseIdle()
		r.OwnPorts = []int{24, n}
		want(t, deliver(t, r, p), "transport is misconfigured|*")
	}
}
