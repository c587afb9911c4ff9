package protocoltest_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

func TestFaults(t *testing.T) {
	later := protocol.Replyf(450, protocol.Enhanced{4, 2, 0}, "Not now")
	rec := protocoltest.NewRecorder()
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Rcpt, Every: 3, Reply: later})
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Body, Every: 2, Reply: protocol.Replyf(452, protocol.Enhanced{4, 3, 1}, "Full")})
	srv := protocoltest.NewLMTPServer(rec)
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	for range 2 {
		c.Cmd("250", "MAIL FROM:<>")
		c.Cmd("250", "RCPT TO:<a>")
		c.Cmd("250", "RCPT TO:<b>")
		c.Cmd("450 4.2.0 Not now", "RCPT TO:<c>")
		c.Cmd("250", "RSET")
	}
	if r := c.Send("", []string{"a"}, "one\r\n", 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("reply %q", r)
	}
	if r := c.Send("", []string{"a"}, "two\r\n", 1); r[0] != "452 4.3.1 Full" {
		t.Errorf("reply %q", r)
	}
	if m := rec.Next(t); string(m.Body) != "one\r\n" || len(rec.Messages()) != 1 {
		t.Errorf("messages %+v", rec.Messages())
	}
}

func TestDropAndStall(t *testing.T) {
	rec := protocoltest.NewRecorder()
	goOn := make(chan struct{})
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Connect, Every: 2, Drop: true})
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Hello, Stall: goOn})
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Data, Drop: true})
	srv := protocoltest.NewServer(rec)
	defer srv.Close()
	c := srv.Dial(t)
	c.Expect("220")
	srv.Dial(t).EOF()
	c.Raw("EHLO client.example.org\r\n")
	close(goOn)
	c.Expect("250")
	c.Cmd("250", "MAIL FROM:<>")
	c.Cmd("250", "RCPT TO:<a>")
	c.Raw("DATA\r\n")
	c.EOF()
}

// TestStallEnds: a server that is closed does not wait for a fault.
func TestStallEnds(t *testing.T) {
	rec := protocoltest.NewRecorder()
	rec.Fail(protocoltest.Fault{Stage: protocoltest.Mail, Stall: make(chan struct{})})
	srv := protocoltest.NewPipe(protocol.LMTP, rec)
	c := srv.Dial(t)
	c.Hello("LHLO")
	c.Raw("MAIL FROM:<>\r\n")
	srv.Close()
}

func TestPipe(t *testing.T) {
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewPipe(protocol.LMTP, rec)
	defer srv.Close()
	for _, body := range []string{"one\r\n", "two\r\n"} {
		c := srv.Dial(t)
		c.Hello("LHLO")
		if r := c.Send("a@example.org", []string{"b", "c"}, body, 2); r[1] != "250 2.0.0 OK" {
			t.Errorf("replies %q", r)
		}
		c.Cmd("221", "QUIT")
		c.EOF()
		if m := rec.Next(t); string(m.Body) != body {
			t.Errorf("message %+v", m)
		}
	}
}

func TestLink(t *testing.T) {
	var pieces atomic.Int32
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, rec)
	srv.Link = protocoltest.Link{Chunk: 3, Wait: func() { pieces.Add(1) }}
	srv.StartUnix()
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	body := strings.Repeat("x", 300) + "\r\n"
	if r := c.Send("", []string{"b"}, body, 1); r[0] != "250 2.0.0 OK" {
		t.Errorf("replies %q", r)
	}
	if m := rec.Next(t); string(m.Body) != body || pieces.Load() < 100 {
		t.Errorf("%d pieces, message %+v", pieces.Load(), m)
	}
}
