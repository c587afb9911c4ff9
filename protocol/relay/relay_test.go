package relay_test

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/protocol/relay"
)

var quiet = slog.New(slog.DiscardHandler)

// next is the server behind a relay: it answers as addresses say.
type next struct {
	*protocoltest.Server
	rec *protocoltest.Recorder
}

func byName(name string) protocol.Reply {
	switch {
	case strings.HasPrefix(name, "unknown"):
		return protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "No such user\nhere")
	case strings.HasPrefix(name, "later"):
		return protocol.Replyf(450, protocol.Enhanced{4, 2, 0}, "Not now")
	case strings.HasPrefix(name, "closing"):
		return protocol.Reply{Code: 421, Text: "Going down", Then: protocol.CloseAfter}
	case strings.HasPrefix(name, "cut"):
		return protocol.Reply{Code: 421, Then: protocol.CloseNow}
	}
	return protocol.Reply{}
}

// startNext starts the next server; change may be nil.
func startNext(t *testing.T, mode protocol.Mode, change func(*protocol.Server)) *next {
	t.Helper()
	n := &next{rec: protocoltest.NewRecorder()}
	n.rec.Reply = func(tx *protocol.Transaction, i int) protocol.Reply {
		switch tx.Rcpts[i].Path.Local {
		case "full":
			return protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "Mailbox full")
		case "gone":
			return protocol.Replyf(550, protocol.Enhanced{5, 2, 1}, "Disabled")
		}
		return protocol.Replyf(250, protocol.Enhanced{2, 0, 0}, "queued as 42")
	}
	n.Server = protocoltest.NewUnstartedServer(mode, n.rec)
	n.Config.Log = quiet
	n.Config.Policy = protocol.Policy{
		Mail: func(_ context.Context, tx *protocol.Transaction) protocol.Reply { return byName(tx.From.Local) },
		Rcpt: func(_ context.Context, _ *protocol.Transaction, r *protocol.Recipient) protocol.Reply {
			return byName(r.Path.Local)
		},
		Data: func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			if name, ok := strings.CutPrefix(tx.From.Local, "data-"); ok {
				return byName(name)
			}
			return protocol.Reply{}
		},
	}
	if change != nil {
		change(n.Config)
	}
	if mode == protocol.LMTP {
		n.StartUnix()
	} else {
		n.Start()
	}
	t.Cleanup(n.Close)
	return n
}

func (n *next) relay() *relay.Relay {
	return &relay.Relay{Mode: n.Config.Mode, Network: n.Network, Addr: n.Addr, Hello: "relay.example.org"}
}

// front starts the server that clients talk to and greets it.
func front(t *testing.T, mode protocol.Mode, h protocol.Handler, p protocol.Policy) *protocoltest.Client {
	t.Helper()
	srv := protocoltest.NewUnstartedServer(mode, h)
	srv.Config.Policy, srv.Config.Log = p, quiet
	if mode == protocol.LMTP {
		srv.StartUnix()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	c := srv.Dial(t)
	c.Hello(map[protocol.Mode]string{protocol.LMTP: "LHLO", protocol.SMTP: "EHLO"}[mode])
	return c
}

func wantReplies(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("replies %q, want %q", got, want)
	}
}

const message = "Subject: x\r\n\r\n.dot\r\n..\r\nlast\r\n"

// TestRecipients: each has the next server's reply, whenever that came, and those given
// twice have it twice.
func TestRecipients(t *testing.T) {
	n := startNext(t, protocol.LMTP, nil)
	c := front(t, protocol.LMTP, n.relay(), protocol.Policy{})
	for range 2 {
		got := c.Send("ann@example.net", []string{"bob@example.org", "full", "unknown", "bob@example.org", "full", "gone", "later", "unknown"}, message, 8)
		wantReplies(t, got, "250 2.0.0 queued as 42", "452 4.2.2 Mailbox full", "550-5.1.1 No such user\r\n550 5.1.1 here", "250 2.0.0 queued as 42",
			"452 4.2.2 Mailbox full", "550 5.2.1 Disabled", "450 4.2.0 Not now", "550-5.1.1 No such user")
	}
	m := n.rec.Messages()
	if len(m) != 2 || string(m[1].Body) != message || m[1].From != "ann@example.net" || m[1].Hello != "relay.example.org" ||
		!slices.Equal(m[1].Rcpts, []string{"bob@example.org", "full", "gone"}) {
		t.Errorf("messages %+v", m)
	}
	// None left: nothing is sent on.
	wantReplies(t, c.Send("", []string{"unknown", "later"}, message, 2), "550", "450")
	if m := n.rec.Messages(); len(m) != 2 {
		t.Errorf("messages %+v", m)
	}
}

// TestToSMTP: the one reply of the next server is that of all recipients.
func TestToSMTP(t *testing.T) {
	n := startNext(t, protocol.SMTP, nil)
	c := front(t, protocol.LMTP, n.relay(), protocol.Policy{})
	wantReplies(t, c.Send("", []string{"bob", "unknown", "eve"}, message, 3), "250 2.0.0 OK", "550-5.1.1", "250 2.0.0 OK")
	wantReplies(t, c.Send("", []string{"bob", "full"}, message, 2), "452 4.2.2", "452 4.2.2")
	wantReplies(t, c.Send("unknown", []string{"bob", "eve"}, message, 2), "550-5.1.1", "550-5.1.1")
	wantReplies(t, c.Send("data-unknown", []string{"bob", "eve"}, message, 2), "550-5.1.1", "550-5.1.1")
	wantReplies(t, c.Send("data-closing", []string{"bob"}, message, 1), "451 4.3.2 Going down")
	wantReplies(t, c.Send("closing", []string{"bob"}, message, 1), "451 4.3.2 Going down")
}

// TestBrokenConnections: at each step the client is asked to try again.
func TestBrokenConnections(t *testing.T) {
	n := startNext(t, protocol.LMTP, nil)
	c := front(t, protocol.LMTP, n.relay(), protocol.Policy{})
	for _, from := range []string{"cut", "data-cut"} {
		wantReplies(t, c.Send(from, []string{"bob", "eve"}, message, 2), "451 4.4.1", "451 4.4.1")
	}
	wantReplies(t, c.Send("", []string{"bob", "unknown", "cut", "eve"}, message, 4), "451 4.4.1", "550", "451 4.4.1", "451 4.4.1")
	n.rec.Reply = func(tx *protocol.Transaction, i int) protocol.Reply {
		if i == 1 {
			n.CloseClientConnections()
		}
		return protocol.Reply{}
	}
	got := c.Send("", []string{"bob", "eve"}, message, 2)
	if got[1] != "451 4.4.1 Error: next server is not available" {
		t.Errorf("replies %q", got)
	}
	n.Close()
	wantReplies(t, c.Send("", []string{"bob", "eve"}, message, 2), "451 4.4.1", "451 4.4.1")
}

// TestGarbage: a server that speaks something else.
func TestGarbage(t *testing.T) {
	for _, banner := range []string{"HTTP/1.1 400 Bad Request\r\n\r\n", "220 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n999 ok\r\n", "554 5.7.1 go away\r\n", ""} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				conn.Write([]byte(banner))
				conn.(*net.TCPConn).CloseWrite()
			}
		}()
		r := &relay.Relay{Network: "tcp", Addr: l.Addr().String()}
		c := front(t, protocol.LMTP, r, protocol.Policy{})
		want := "451 4."
		if strings.HasPrefix(banner, "554") {
			want = "554 5.7.1 go away"
		}
		wantReplies(t, c.Send("", []string{"bob"}, message, 1), want)
		l.Close()
	}
}

// TestGivenUp: a message that did not arrive whole is not passed on.
func TestGivenUp(t *testing.T) {
	n := startNext(t, protocol.SMTP, nil)
	for name, end := range map[string]func(c *protocoltest.Client){
		"vanished": func(c *protocoltest.Client) { c.Close() },
		"too big": func(c *protocoltest.Client) {
			c.Raw(strings.Repeat("x\r\n", 2000) + ".\r\n")
			c.Expect("552 5.3.4")
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := protocoltest.NewUnstartedServer(protocol.LMTP, n.relay())
			srv.Config.Limits.MessageSize = 5000
			srv.StartUnix()
			c := srv.Dial(t)
			c.Hello("LHLO")
			c.Cmd("250", "MAIL FROM:<>")
			c.Cmd("250", "RCPT TO:<bob>")
			c.Cmd("354", "DATA")
			c.Raw("Subject: x\r\n\r\n")
			end(c)
			srv.Close()
			n.CloseClientConnections()
			if m := n.rec.Messages(); len(m) != 0 {
				t.Errorf("messages %+v", m)
			}
		})
	}
}

// TestPolicy: with it, the client has each reply when the next server gives it, and
// one connection serves the session.
func TestPolicy(t *testing.T) {
	connections := make(chan error, 10)
	n := startNext(t, protocol.SMTP, func(srv *protocol.Server) {
		srv.Policy.Close = func(_ context.Context, _ *protocol.Session, err error) { connections <- err }
	})
	r := n.relay()
	c := front(t, protocol.SMTP, r, r.Policy())
	c.Cmd("550-5.1.1 No such user\r\n550 5.1.1 here", "MAIL FROM:<unknown>")
	for range 2 {
		c.Cmd("250 2.1.0 OK", "MAIL FROM:<ann>")
		c.Cmd("250 2.1.5 OK", "RCPT TO:<bob>")
		c.Cmd("550-5.1.1", "RCPT TO:<unknown>")
		c.Cmd("450 4.2.0 Not now", "RCPT TO:<later>")
		c.Cmd("250 2.1.5 OK", "RCPT TO:<bob>")
		c.Cmd("354", "DATA")
		c.Raw(protocoltest.Stuff(message))
		c.Expect("250 2.0.0 OK")
		// A transaction that is given up leaves nothing behind.
		c.Cmd("250", "MAIL FROM:<eve>")
		c.Cmd("250", "RCPT TO:<mallory>")
		c.Cmd("250", "RSET")
	}
	c.Cmd("221", "QUIT")
	c.EOF()
	if err := <-connections; err != nil {
		t.Errorf("the connection ended with %v", err)
	}
	if len(connections) != 0 {
		t.Error("more than one connection")
	}
	m := n.rec.Messages()
	if len(m) != 2 || m[1].From != "ann" || !slices.Equal(m[1].Rcpts, []string{"bob"}) || string(m[1].Body) != message {
		t.Errorf("messages %+v", m)
	}
}

// TestPolicyReconnects: a connection that the next server has closed is made anew for
// the next message; in the middle of one it is an error for now.
func TestPolicyReconnects(t *testing.T) {
	n := startNext(t, protocol.LMTP, nil)
	r := n.relay()
	c := front(t, protocol.LMTP, r, r.Policy())
	wantReplies(t, c.Send("ann", []string{"bob", "full"}, message, 2), "250", "452")
	n.CloseClientConnections()
	c.Cmd("250", "MAIL FROM:<ann>")
	c.Cmd("250", "RCPT TO:<bob>")
	n.CloseClientConnections()
	c.Cmd("451 4.4.1", "RCPT TO:<eve>")
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff(message))
	c.Expect("250") // for the only recipient, over a new connection
	c.Cmd("451 4.3.2 Going down", "MAIL FROM:<closing>")
	wantReplies(t, c.Send("ann", []string{"bob"}, message, 1), "250")
	n.Close()
	c.Cmd("451 4.4.1", "MAIL FROM:<ann>")
}

// TestPolicyOfPart: a transaction that is not the one that was prepared is begun anew.
func TestPolicyOfPart(t *testing.T) {
	n := startNext(t, protocol.LMTP, nil)
	r := n.relay()
	isLocal := func(rcpt *protocol.Recipient) bool { return rcpt.Path.Local == "local" }
	c := front(t, protocol.LMTP, protocol.Split(isLocal, protocol.Discard, r), r.Policy())
	wantReplies(t, c.Send("ann", []string{"bob", "local", "eve"}, message, 3), "250 2.0.0 queued", "250 2.0.0 OK", "250 2.0.0 queued")
	if m := n.rec.Messages(); len(m) != 1 || !slices.Equal(m[0].Rcpts, []string{"bob", "eve"}) {
		t.Errorf("messages %+v", m)
	}
}

// TestParameters: what the next server offers is passed on, and what it cannot take is
// refused.
func TestParameters(t *testing.T) {
	all := startNext(t, protocol.LMTP, func(srv *protocol.Server) {
		srv.Ext = protocol.DefaultExt | protocol.ExtDSN | protocol.ExtRRVS
		srv.Limits.MessageSize = 1000
	})
	seen := make(chan *protocol.Transaction, 10)
	all.Config.Policy.Data = func(_ context.Context, tx *protocol.Transaction) protocol.Reply { seen <- tx; return protocol.Reply{} }
	little := startNext(t, protocol.SMTP, func(srv *protocol.Server) { srv.Ext = protocol.ExtEnhanced })

	send := func(r *relay.Relay, mail, rcpt, want string) {
		t.Helper()
		srv := protocoltest.NewUnstartedServer(protocol.LMTP, r)
		srv.Config.Ext = protocol.DefaultExt | protocol.ExtDSN | protocol.ExtRRVS
		srv.StartUnix()
		defer srv.Close()
		c := srv.Dial(t)
		c.Hello("LHLO")
		c.Cmd("250", "MAIL FROM:<ann@example.org> %s", mail)
		c.Cmd("250", "RCPT TO:<bob@example.org> %s", rcpt)
		if strings.Contains(mail, "BINARYMIME") {
			c.Raw("BDAT 3 LAST\r\nx\r\n")
		} else {
			c.Cmd("354", "DATA")
			c.Raw(protocoltest.Stuff(message))
		}
		c.Expect(want)
	}
	xpeer := all.relay()
	xpeer.XPeer = true
	send(xpeer, "SIZE=100 SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=x+2By", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@example.org", "250")
	tx := <-seen
	if tx.Mail.Size != 100+int64(len("X-Peer: local\r\n")) || !tx.Mail.UTF8 || tx.Mail.Body != protocol.Body8BitMIME || tx.Mail.Ret != protocol.RetHdrs || tx.Mail.EnvID != "x+y" {
		t.Errorf("parameters %+v", tx.Mail)
	}
	if r := tx.Rcpts[0]; r.Notify != protocol.NotifySuccess|protocol.NotifyDelay || r.ORcpt != "a+b@example.org" {
		t.Errorf("recipient %+v", r)
	}
	send(all.relay(), "SMTPUTF8", "ORCPT=utf-8;gr\u00fc\u00dfe@example.org", "250")
	if r := (<-seen).Rcpts[0]; r.ORcpt != "gr\u00fc\u00dfe@example.org" {
		t.Errorf("recipient %+v", r)
	}
	send(all.relay(), "", "ORCPT=x400;abc", "250")
	if r := (<-seen).Rcpts[0]; r.ORcpt != "" {
		t.Errorf("recipient %+v", r)
	}
	send(all.relay(), "SIZE=2000", "", "552 5.3.4")
	send(all.relay(), "BODY=BINARYMIME", "", "554 5.6.3")
	send(little.relay(), "SMTPUTF8", "", "550 5.6.7")
	send(little.relay(), "BODY=8BITMIME", "", "554 5.6.3")
	send(little.relay(), "SIZE=100 BODY=7BIT RET=FULL", "NOTIFY=NEVER", "250")
	send(little.relay(), "", "RRVS=2014-04-03T23:01:00Z", "550 5.7.19")
	send(little.relay(), "", "RRVS=2014-04-03T23:01:00Z;C", "250")
	send(all.relay(), "", "RRVS=2014-04-03T23:01:00Z;R", "250")
	if r := (<-seen).Rcpts[0]; !r.RRVS.Time.Equal(time.Date(2014, 4, 3, 23, 1, 0, 0, time.UTC)) {
		t.Errorf("recipient %+v", r)
	}
}

// TestXPeer: the field is the last of the header, as that of the references' proxies.
func TestXPeer(t *testing.T) {
	n := startNext(t, protocol.SMTP, nil)
	r := n.relay()
	r.XPeer = true
	c := front(t, protocol.SMTP, r, protocol.Policy{})
	wantReplies(t, c.Send("", []string{"bob"}, "A: b\r\nC: d\r\n\r\nbody\r\n\r\nbody\r\n", 1), "250")
	if m := n.rec.Messages(); len(m) != 1 || string(m[0].Body) != "A: b\r\nC: d\r\nX-Peer: 127.0.0.1\r\n\r\nbody\r\n\r\nbody\r\n" {
		t.Errorf("messages %q", m)
	}
}

// TestForced: a server that is closed by force does not wait for the next one.
func TestForced(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // it never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	srv := protocoltest.NewLMTPServer(&relay.Relay{Network: "tcp", Addr: l.Addr().String()})
	c := srv.Dial(t)
	c.Hello("LHLO")
	c.Cmd("250", "MAIL FROM:<>")
	c.Cmd("250", "RCPT TO:<bob>")
	c.Cmd("354", "DATA")
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	srv.Close()
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"smtp://mx.example.org":   "SMTP tcp mx.example.org:25",
		"smtp://mx.example.org:1": "SMTP tcp mx.example.org:1",
		"smtp://[::1]":            "SMTP tcp [::1]:25",
		"lmtp://[::1]:24":         "LMTP tcp [::1]:24",
		"lmtp:/run/x.sock":        "LMTP unix /run/x.sock",
		"lmtp:///run/x.sock":      "LMTP unix /run/x.sock",
		"smtp:/run/x.sock":        "SMTP unix /run/x.sock",
		"/run/x.sock":             "LMTP unix /run/x.sock",
		"localhost:25":            "SMTP tcp localhost:25",
		"lmtp:localhost:24":       "LMTP tcp localhost:24",
	} {
		r, err := relay.Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		} else if got := r.Mode.String() + " " + r.Network + " " + r.Addr; got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"", "smtp://", "lmtp://", "lmtp://localhost", "localhost", "smtp:", "http://localhost:80", "lmtp::24", ":25", "x"} {
		if r, err := relay.Parse(in); err == nil {
			t.Errorf("%q: %+v", in, r)
		}
	}
}
