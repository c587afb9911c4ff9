package protocol_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// talk runs a session over nothing and gives what the server said and how it ended.
func talk(srv *protocol.Server, said string) (string, error) {
	conn := &scriptConn{pieces: [][]byte{[]byte(said)}}
	err := srv.ServeConn(context.Background(), conn)
	return conn.out.String(), err
}

const wholeSession = "LHLO client.example.org\r\nNOOP x\r\nVRFY a\r\nEXPN b\r\nRSET\r\n" +
	"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"

// panicIn makes a policy whose hook of that name panics.
func panicIn(name string) protocol.Policy {
	boom := func(hook string) {
		if hook == name {
			panic("boom in " + hook)
		}
	}
	type (
		ctx     = context.Context
		session = *protocol.Session
		tx      = *protocol.Transaction
		reply   = protocol.Reply
	)
	return protocol.Policy{
		Connect:    func(ctx, session) reply { boom("Connect"); return reply{} },
		Hello:      func(ctx, session, string) reply { boom("Hello"); return reply{} },
		Extensions: func(_ ctx, _ session, l []string) []string { boom("Extensions"); return l },
		Mail:       func(ctx, tx) reply { boom("Mail"); return reply{} },
		Rcpt:       func(ctx, tx, *protocol.Recipient) reply { boom("Rcpt"); return reply{} },
		Data:       func(ctx, tx) reply { boom("Data"); return reply{} },
		Verify:     func(ctx, session, string) reply { boom("Verify"); return reply{} },
		Expand:     func(ctx, session, string) reply { boom("Expand"); return reply{} },
		Noop:       func(ctx, session, string) reply { boom("Noop"); return reply{} },
		Reset:      func(ctx, session) reply { boom("Reset"); return reply{} },
		Quit:       func(ctx, session) reply { boom("Quit"); return reply{} },
		Failure:    func(ctx, session, error) reply { boom("Failure"); return reply{} },
		Close:      func(ctx, session, error) { boom("Close") },
	}
}

// TestPanics: a panic in any hook ends its session with 421, and no other.
func TestPanics(t *testing.T) {
	for _, hook := range []string{
		"Connect", "Hello", "Extensions", "Mail", "Rcpt", "Data", "Verify", "Expand", "Noop", "Reset", "Quit", "Failure", "Close",
	} {
		t.Run(hook, func(t *testing.T) {
			srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Policy: panicIn(hook)}
			if hook == "Failure" {
				srv.Handler = protocol.HandlerFunc(func(context.Context, *protocol.Transaction, *protocol.Body) error { return errors.New("x") })
			}
			out, err := talk(srv, wholeSession)
			if hook == "Close" {
				if err != nil || !strings.HasSuffix(out, "221 2.0.0 Bye\r\n") {
					t.Errorf("%q, %v", out, err)
				}
				return
			}
			lines := strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n")
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, "421 4.3.0 ") || strings.Contains(out, "boom") {
				t.Errorf("got %q", out)
			}
			var p *protocol.PanicError
			if !errors.As(err, &p) || p.Value != "boom in "+hook || len(p.Stack) == 0 || p.Error() != "panic: boom in "+hook {
				t.Errorf("ServeConn returned %v", err)
			}
			if n := srv.Sessions(); n != 0 {
				t.Errorf("%d sessions left", n)
			}
		})
	}
}

// TestPanicInHandler: half the recipients settled, then a panic; the session goes on.
func TestPanicInHandler(t *testing.T) {
	var told error
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Policy: protocol.Policy{
		Failure: func(_ context.Context, _ *protocol.Session, err error) protocol.Reply {
			told = err
			return protocol.Reply{}
		},
	}, Handler: protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		tx.Settle(0, protocol.Reply{})
		body.Read(make([]byte, 1))
		panic("boom")
	})}
	out, err := talk(srv, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nRCPT TO:<b>\r\nDATA\r\nsome text\r\n.\r\nQUIT\r\n")
	if err != nil || !strings.HasSuffix(out, "\r\n250 2.0.0 OK\r\n451 4.3.0 Error: temporary internal failure\r\n221 2.0.0 Bye\r\n") {
		t.Errorf("%q, %v", out, err)
	}
	var p *protocol.PanicError
	if !errors.As(told, &p) || p.Value != "boom" {
		t.Errorf("Failure was told %v", told)
	}
}

// TestChain: all are asked until one refuses; the last words that accept are used.
func TestChain(t *testing.T) {
	var asked []string
	note := func(name string, r protocol.Reply) protocol.Policy {
		all := func(hook string) protocol.Reply {
			asked = append(asked, name+hook)
			return r
		}
		return protocol.Policy{
			Connect: func(context.Context, *protocol.Session) protocol.Reply { all("Connect"); return protocol.Reply{} },
			Hello:   func(context.Context, *protocol.Session, string) protocol.Reply { all("Hello"); return protocol.Reply{} },
			Extensions: func(_ context.Context, _ *protocol.Session, lines []string) []string {
				return append(lines, "X"+name)
			},
			Mail:    func(context.Context, *protocol.Transaction) protocol.Reply { return all("Mail") },
			Rcpt:    func(context.Context, *protocol.Transaction, *protocol.Recipient) protocol.Reply { return all("Rcpt") },
			Data:    func(context.Context, *protocol.Transaction) protocol.Reply { return all("Data") },
			Verify:  func(context.Context, *protocol.Session, string) protocol.Reply { return all("Verify") },
			Expand:  func(context.Context, *protocol.Session, string) protocol.Reply { return all("Expand") },
			Noop:    func(context.Context, *protocol.Session, string) protocol.Reply { return all("Noop") },
			Reset:   func(context.Context, *protocol.Session) protocol.Reply { return all("Reset") },
			Quit:    func(context.Context, *protocol.Session) protocol.Reply { return all("Quit") },
			Failure: func(context.Context, *protocol.Session, error) protocol.Reply { return all("Failure") },
			Close:   func(context.Context, *protocol.Session, error) { all("Close") },
		}
	}
	srv := &protocol.Server{Mode: protocol.LMTP, Hostname: "h", Log: quiet, Policy: protocol.Chain(
		note("1", protocol.Replyf(250, protocol.Enhanced{}, "one")), protocol.Policy{}, note("2", protocol.Reply{}),
	), Handler: protocol.HandlerFunc(func(context.Context, *protocol.Transaction, *protocol.Body) error { return errors.New("x") })}
	out, err := talk(srv, wholeSession)
	if err != nil || !strings.Contains(out, "250-X1\r\n250 X2\r\n250 2.0.0 one\r\n250 2.0.0 one\r\n") || !strings.HasSuffix(out, "354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 one\r\n250 2.0.0 one\r\n") {
		t.Errorf("%q, %v", out, err)
	}
	var want []string
	for _, hook := range []string{"Connect", "Hello", "Noop", "Verify", "Expand", "Reset", "Mail", "Rcpt", "Data", "Failure", "Quit", "Close"} {
		want = append(want, "1"+hook, "2"+hook)
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}

	asked = nil
	srv = &protocol.Server{Mode: protocol.LMTP, Hostname: "h", Log: quiet,
		Policy: protocol.Chain(note("1", protocol.Replyf(450, protocol.Enhanced{}, "not now")), note("2", protocol.Reply{}))}
	out, _ = talk(srv, "LHLO x\r\nMAIL FROM:<>\r\n")
	if !strings.HasSuffix(out, "\r\n450 4.0.0 not now\r\n") || slices.Contains(asked, "2Mail") {
		t.Errorf("%q, asked %v", out, asked)
	}
}

// TestHooksRewrite: what hooks change is what the handler gets.
func TestHooksRewrite(t *testing.T) {
	type key struct{}
	var got string
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Policy: protocol.Policy{
		Connect: func(_ context.Context, s *protocol.Session) protocol.Reply { s.Value = "v"; return protocol.Reply{} },
		Mail: func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			tx.ID = "Q1"
			return protocol.Reply{}
		},
		Rcpt: func(_ context.Context, tx *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
			if rcpt.Path.Local == "nobody" {
				return protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "no")
			}
			rcpt.Value = len(tx.Rcpts) // not in the list yet
			rcpt.Path.Local = strings.ToLower(rcpt.Path.Local)
			return protocol.Reply{}
		},
	}, Handler: protocol.HandlerFunc(func(ctx context.Context, tx *protocol.Transaction, _ *protocol.Body) error {
		got = fmt.Sprintln(ctx.Value(key{}), tx.Session.Value, tx.ID, tx.Mail.Size, tx.Mail.Body, tx.With())
		for _, r := range tx.Rcpts {
			got += fmt.Sprintln(r.Path, r.Value, r.ORcpt)
		}
		return nil
	}), ConnContext: func(ctx context.Context, _ net.Conn) context.Context { return context.WithValue(ctx, key{}, "c") }}
	talk(srv, "LHLO x\r\nMAIL FROM:<> SIZE=3 BODY=8BITMIME\r\nRCPT TO:<nobody@e>\r\nRCPT TO:<A@e> ORCPT=rfc822;o\r\nRCPT TO:<nobody@e>\r\nRCPT TO:<B@e>\r\nDATA\r\n.\r\n")
	if want := "c v Q1 3 8BITMIME LMTP a@e 0 o b@e 1 "; strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWith: the protocol names of Received fields.
func TestWith(t *testing.T) {
	for _, c := range []struct {
		mode  protocol.Mode
		hello string
		param string
		want  string
	}{
		{protocol.SMTP, "HELO x", "", "SMTP"},
		{protocol.SMTP, "EHLO x", "", "ESMTP"},
		{protocol.SMTP, "EHLO x", " SMTPUTF8", "UTF8SMTP"},
		{protocol.LMTP, "LHLO x", "", "LMTP"},
		{protocol.LMTP, "LHLO x", " SMTPUTF8", "UTF8LMTP"},
	} {
		rec := protocoltest.NewRecorder()
		talk(&protocol.Server{Mode: c.mode, Handler: rec, Log: quiet}, c.hello+"\r\nMAIL FROM:<>"+c.param+"\r\nRCPT TO:<b>\r\nDATA\r\n.\r\n")
		if m := rec.Messages(); len(m) != 1 || m[0].With != c.want || m[0].Hello != "x" {
			t.Errorf("%+v: got %+v", c, m)
		}
	}
	if s := protocol.SMTP.String() + protocol.LMTP.String(); s != "SMTPLMTP" {
		t.Errorf("names of the modes: %s", s)
	}
}

// TestZeroServer: the zero value accepts and discards, with contexts of its own.
func TestZeroServer(t *testing.T) {
	type key struct{}
	srv := &protocol.Server{Log: quiet, BaseContext: func(net.Listener) context.Context {
		return context.WithValue(context.Background(), key{}, "base")
	}}
	seen := make(chan any, 1)
	srv.Policy.Close = func(ctx context.Context, _ *protocol.Session, _ error) { seen <- ctx.Value(key{}) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := protocoltest.NewClient(t, conn)
	c.Hello("EHLO")
	if r := c.Send("a@example.org", []string{"b@example.org"}, "Subject: x\r\n\r\nx\r\n", 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("got %q", r)
	}
	c.Cmd("221", "QUIT")
	c.EOF()
	c.Close()
	if v := <-seen; v != "base" {
		t.Errorf("context value %v", v)
	}
}

// TestFaultyBodyErrors: what a handler reads of a message that breaks a rule.
func TestFaultyBodyErrors(t *testing.T) {
	var got error
	var n int64
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Limits: protocol.Limits{MessageSize: 10}, Handler: protocol.HandlerFunc(
		func(_ context.Context, _ *protocol.Transaction, body *protocol.Body) error {
			n, got = body.WriteTo(io.Discard)
			return nil // accepts all the same: to no avail
		})}
	out, _ := talk(srv, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\n0123456789\r\n.\r\n")
	var r protocol.Reply
	if !errors.Is(got, protocol.ErrFault) || !errors.As(got, &r) || r.Code != 552 || n > 10 {
		t.Errorf("after %d octets the handler read %v", n, got)
	}
	if !strings.HasSuffix(out, "\r\n552 5.3.4 Error: Too much mail data\r\n") {
		t.Errorf("got %q", out)
	}
}

// TestPeerCred: a policy sees who is at the other end of a Unix socket.
func TestPeerCred(t *testing.T) {
	got := make(chan *protocol.PeerCred, 1)
	srv := start(t, func(s *protocol.Server) {
		s.Policy.Connect = func(_ context.Context, s *protocol.Session) protocol.Reply {
			got <- s.PeerCred
			return protocol.Reply{}
		}
	})
	srv.Dial(t).Expect("220")
	c := <-got
	if runtime.GOOS != "linux" {
		if c != nil {
			t.Errorf("got %+v", c)
		}
		return
	}
	if c == nil || c.PID != os.Getpid() || c.UID != uint32(os.Getuid()) || c.GID != uint32(os.Getgid()) {
		t.Errorf("got %+v", c)
	}
	talk(srv.Config, "QUIT\r\n") // a connection that only looks like a Unix socket
	if c := <-got; c != nil {
		t.Errorf("got %+v", c)
	}
}

// TestChainCloses: whoever closes the connection has the last word, though it accepts.
func TestChainCloses(t *testing.T) {
	for _, then := range []protocol.Then{protocol.CloseAfter, protocol.CloseNow} {
		asked := false
		srv := &protocol.Server{Log: quiet, Policy: protocol.Chain(
			protocol.Policy{Noop: func(context.Context, *protocol.Session, string) protocol.Reply {
				return protocol.Reply{Code: 250, Text: "enough", Then: then}
			}},
			protocol.Policy{Noop: func(context.Context, *protocol.Session, string) protocol.Reply {
				asked = true
				return protocol.Reply{Code: 250, Text: "more"}
			}},
		)}
		out, err := talk(srv, "NOOP\r\nNOOP\r\n")
		_, after, _ := strings.Cut(out, "\r\n")
		if want := map[protocol.Then]string{protocol.CloseAfter: "250 2.0.0 enough\r\n", protocol.CloseNow: ""}[then]; asked || err != nil || after != want {
			t.Errorf("asked the next one: %t; got %q, %v", asked, out, err)
		}
	}
}
