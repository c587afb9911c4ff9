package protocol_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// repliedServer reports on a channel what becomes of the replies of each
// transaction. Its handler waits for hold, if that is not nil.
func repliedServer(t *testing.T, mode protocol.Mode, unix bool, hold <-chan *protocoltest.Client) (*protocoltest.Server, chan string) {
	t.Helper()
	told := make(chan string, 10)
	srv := protocoltest.NewUnstartedServer(mode, protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		if hold != nil {
			<-hold
		}
		for i := range tx.Rcpts {
			tx.Settle(i, protocol.Reply{})
		}
		return nil
	}))
	srv.Config.Log = quiet
	srv.Config.Policy = protocol.Chain(protocol.Policy{
		Replied: func(_ context.Context, tx *protocol.Transaction, seen bool) {
			told <- fmt.Sprint(tx.From.Local, " ", seen)
		},
		Close: func(context.Context, *protocol.Session, error) { told <- "closed" },
	})
	if unix {
		srv.StartUnix()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv, told
}

func wantTold(t *testing.T, told <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-told; got != w {
			t.Errorf("told %q, want %q", got, w)
		}
	}
}

func TestReplied(t *testing.T) {
	const two = "RCPT TO:<x@x>\r\nRCPT TO:<y@x>\r\nDATA\r\n"
	for _, mode := range []protocol.Mode{protocol.LMTP, protocol.SMTP} {
		hello, replies := "LHLO", 2
		if mode == protocol.SMTP {
			hello, replies = "EHLO", 1
		}
		for _, unix := range []bool{true, false} {
			// data brings a new client up to the end of its data.
			data := func(srv *protocoltest.Server, more string) *protocoltest.Client {
				c := srv.Dial(t)
				c.Hello(hello)
				c.Raw("MAIL FROM:<one>\r\n" + two)
				c.Expect("250")
				c.Expect("250")
				c.Expect("250")
				c.Expect("354")
				c.Raw("x\r\n.\r\n" + more)
				return c
			}
			read := func(c *protocoltest.Client) {
				for range replies {
					c.Expect("250 2.0.0")
				}
			}
			name := fmt.Sprintf("%v, Unix socket %v", mode, unix)

			t.Run(name+", next command", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "")
				read(c)
				c.Cmd("250", "NOOP")
				wantTold(t, told, "one true")
				c.Raw("MAIL FROM:<two>\r\n" + two)
				c.Expect("250")
				c.Expect("250")
				c.Expect("250")
				c.Expect("354")
				c.Raw("x\r\n.\r\n")
				read(c)
				c.Cmd("221", "QUIT")
				c.Close()
				wantTold(t, told, "two true", "closed")
			})
			t.Run(name+", closed after reading", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "")
				read(c)
				c.Close()
				wantTold(t, told, "one false", "closed") // it may have crashed
			})
			t.Run(name+", pipelined QUIT", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "QUIT\r\n")
				read(c)
				c.Expect("221")
				c.EOF()
				c.Close()
				wantTold(t, told, "one true", "closed")
			})
			t.Run(name+", pipelined QUIT, and closed behind the last reply", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "QUIT\r\n")
				got, buf := "", make([]byte, 4096) // as clients have it that do not wait for the 221
				for strings.Count(got, "\r\n") < replies {
					n, err := c.Conn().Read(buf)
					if err != nil {
						t.Fatal(err)
					}
					got += string(buf[:n])
				}
				if !strings.Contains(got, "\r\n221 ") {
					t.Errorf("read %q; want the reply to QUIT in one write with the last one to the data", got)
				}
				c.Close()
				wantTold(t, told, "one true", "closed")
			})
			t.Run(name+", pipelined QUIT and nothing read", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "QUIT\r\n")
				if _, err := io.ReadFull(c.Conn(), make([]byte, 3)); err != nil { // they have been written
					t.Fatal(err)
				}
				c.Close()
				wantTold(t, told, "one false", "closed")
			})
			for _, more := range []string{"", "QUIT\r\n", "RSET\r\nMAIL FROM:<two>\r\nQUIT\r\n"} {
				t.Run(fmt.Sprintf("%s, closed before the replies, %q", name, more), func(t *testing.T) {
					hold := make(chan *protocoltest.Client)
					srv, told := repliedServer(t, mode, unix, hold)
					c := data(srv, more)
					c.Close()
					hold <- c
					wantTold(t, told, "one false", "closed")
				})
			}
			t.Run(name+", closed without reading", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := data(srv, "")
				if _, err := io.ReadFull(c.Conn(), make([]byte, 3)); err != nil { // they have been written
					t.Fatal(err)
				}
				c.Close()
				wantTold(t, told, "one false", "closed")
			})
			t.Run(name+", vanished within the data", func(t *testing.T) {
				srv, told := repliedServer(t, mode, unix, nil)
				c := srv.Dial(t)
				c.Hello(hello)
				c.Raw("MAIL FROM:<one>\r\n" + two)
				for range 3 {
					c.Expect("250")
				}
				c.Expect("354")
				c.Raw("x\r\n.")
				c.Close()
				wantTold(t, told, "one false", "closed")
			})
		}
	}
}

// A handler learns whether the client of a session is still there.
func TestGone(t *testing.T) {
	for _, unix := range []bool{true, false} {
		sessions := make(chan *protocol.Session)
		release := make(chan struct{})
		srv := protocoltest.NewUnstartedServer(protocol.LMTP, protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			_, err := io.Copy(io.Discard, body)
			sessions <- tx.Session
			<-release
			return err
		}))
		srv.Config.Log = quiet
		if unix {
			srv.StartUnix()
		} else {
			srv.Start()
		}
		c := srv.Dial(t)
		c.Hello("LHLO")
		c.Cmd("250", "MAIL FROM:<>")
		c.Cmd("250", "RCPT TO:<x@x>")
		c.Cmd("354", "DATA")
		c.Raw("x\r\n.\r\nQUIT\r\n") // what is pipelined does not hide it
		s := <-sessions
		if s.Gone() {
			t.Error("gone, and it is there")
		}
		c.Close()
		if !s.Gone() {
			t.Error("there, and it is gone")
		}
		close(release)
		srv.Close()
		if !s.Gone() {
			t.Error("the session is over")
		}
	}
	// Of a connection without a descriptor nothing is known.
	near, far := net.Pipe()
	go far.Close()
	srv := &protocol.Server{Log: quiet, Policy: protocol.Policy{Connect: func(_ context.Context, s *protocol.Session) protocol.Reply {
		if s.Gone() {
			t.Error("gone")
		}
		return protocol.Reply{}
	}}}
	srv.ServeConn(context.Background(), near)
}
