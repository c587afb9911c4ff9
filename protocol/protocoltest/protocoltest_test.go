package protocoltest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

func Example() {
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewLMTPServer(rec)
	defer srv.Close()

	var t testing.T // in a test: its own
	c := srv.Dial(&t)
	c.Hello("LHLO")
	for _, reply := range c.Send("a@example.org", []string{"b@example.org", "c@example.org"}, "Subject: hello\r\n\r\nHello.\r\n", 2) {
		fmt.Println(reply)
	}
	messages, _ := rec.Wait(context.Background(), 1)
	fmt.Println(messages[0].From, messages[0].Rcpts, messages[0].With)
	// Output:
	// 250 2.0.0 OK
	// 250 2.0.0 OK
	// a@example.org [b@example.org c@example.org] LMTP
}

func TestServers(t *testing.T) {
	rec := protocoltest.NewRecorder()
	smtp := protocoltest.NewServer(rec)
	defer smtp.Close()
	if smtp.Network != "tcp" {
		t.Errorf("network %q", smtp.Network)
	}
	c := smtp.Dial(t)
	c.Hello("EHLO")
	if r := c.Send("a@example.org", []string{"b@example.org"}, ".\r\n", 1); protocoltest.Code(r[0]) != 250 {
		t.Errorf("reply %q", r)
	}
	lmtp := protocoltest.NewLMTPServer(rec)
	path := lmtp.Addr
	d := lmtp.Dial(t)
	d.Hello("LHLO")
	lmtp.CloseClientConnections()
	d.EOF()
	lmtp.Dial(t).Expect("220")
	lmtp.Close()
	lmtp.Close()
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("the socket's directory is left: %v", err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the server still answers")
	}
	protocoltest.NewUnstartedServer(protocol.SMTP, rec).Close()
	if m := rec.Messages(); len(m) != 1 || string(m[0].Body) != ".\r\n" {
		t.Errorf("messages %+v", m)
	}
}

func TestRecorder(t *testing.T) {
	rec := protocoltest.NewRecorder()
	rec.Reply = func(tx *protocol.Transaction, i int) protocol.Reply {
		if tx.Rcpts[i].Path.Local == "full" {
			return protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "full")
		}
		return protocol.Reply{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if m, err := rec.Wait(ctx, 1); err == nil || len(m) != 0 {
		t.Errorf("Wait gave %v, %v", m, err)
	}
	srv := protocoltest.NewLMTPServer(rec)
	defer srv.Close()
	waited := make(chan error, 1)
	go func() {
		_, err := rec.Wait(context.Background(), 2)
		waited <- err
	}()
	c := srv.Dial(t)
	c.Hello("LHLO")
	for range 2 {
		r := c.Send("", []string{"b", "full"}, "no final newline", 2)
		if r[0] != "250 2.0.0 OK" || r[1] != "452 4.2.2 full" {
			t.Errorf("replies %q", r)
		}
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	c.Cmd("250", "NOOP %s", "x")
	c.Close()
}

// failing records what a Client complains about.
type failing struct {
	testing.TB
	said chan string
}

func (f failing) Helper()        {}
func (f failing) Cleanup(func()) {}
func (f failing) Fatalf(format string, a ...any) {
	f.said <- fmt.Sprintf(format, a...)
	select {} // as FailNow: never returns
}

// TestClientFails: a client says what was wrong.
func TestClientFails(t *testing.T) {
	srv := protocoltest.NewLMTPServer(nil)
	defer srv.Close()
	for name, c := range map[string]struct {
		act  func(*protocoltest.Client)
		want string
	}{
		"another reply": {func(c *protocoltest.Client) { c.Expect("554") }, `want "554"`},
		"to a command":  {func(c *protocoltest.Client) { c.Expect("220"); c.Cmd("354", "NOOP") }, `"NOOP": got reply "250 2.0.0 OK", want "354"`},
		"no reply":      {func(c *protocoltest.Client) { c.Expect("220"); c.Raw("QUIT\r\n"); c.Expect("221"); c.Reply() }, "read reply"},
		"not the end":   {func(c *protocoltest.Client) { c.Raw("QUIT\r\n"); c.EOF() }, "want end of connection"},
		"closed":        {func(c *protocoltest.Client) { c.Close(); c.Raw("NOOP\r\n") }, "write"},
	} {
		f := failing{t, make(chan string, 1)}
		conn, err := net.Dial(srv.Network, srv.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go c.act(protocoltest.NewClient(f, conn))
		if said := <-f.said; !strings.Contains(said, c.want) {
			t.Errorf("%s: it said %q", name, said)
		}
	}
}

func TestMalformedReply(t *testing.T) {
	client, server := net.Pipe()
	f := failing{t, make(chan string, 1)}
	go protocoltest.NewClient(f, client).Reply()
	server.Write([]byte("250 OK\n"))
	if said := <-f.said; !strings.Contains(said, "malformed") {
		t.Errorf("it said %q", said)
	}
}

func TestStuff(t *testing.T) {
	for in, want := range map[string]string{
		"":              ".\r\n",
		"x\r\n":         "x\r\n.\r\n",
		"x":             "x\r\n.\r\n",
		".\r\n..\r\nx.": "..\r\n...\r\nx.\r\n.\r\n",
	} {
		if got := protocoltest.Stuff(in); got != want {
			t.Errorf("Stuff(%q) = %q, want %q", in, got, want)
		}
	}
	if protocoltest.Code("x") != 0 || protocoltest.Code("250-x") != 250 {
		t.Error("Code is wrong")
	}
}

func TestTLSServers(t *testing.T) {
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewTLSServer(rec)
	defer srv.Close()
	c := srv.Dial(t)
	if state := c.Secure(srv.ClientTLS()); !state.PeerCertificates[0].Equal(srv.Certificate()) {
		t.Error("another certificate than the server's")
	}
	c.Hello("EHLO")
	c.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1)
	c.Cmd("221", "QUIT")
	c.EOF()

	plain := protocoltest.NewUnstartedServer(protocol.LMTP, rec)
	if plain.Certificate() != nil {
		t.Error("a certificate without TLS")
	}
	plain.UseTLS()
	plain.StartUnix()
	defer plain.Close()
	d := plain.Dial(t)
	d.Hello("LHLO")
	d.Cmd("220", "STARTTLS")
	d.Secure(plain.ClientTLS())
	d.Cmd("250", "LHLO client.example.org")
	d.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1)
	if m := rec.Messages(); len(m) != 2 || m[0].With != "ESMTPS" || m[1].With != "LMTPS" {
		t.Errorf("messages %+v", m)
	}

	// A client that does not trust the certificate says so.
	f := failing{t, make(chan string, 1)}
	conn, err := net.Dial(srv.Network, srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go protocoltest.NewClient(f, conn).Secure(&tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()})
	if said := <-f.said; !strings.Contains(said, "TLS handshake") {
		t.Errorf("it said %q", said)
	}
}
