package protocol_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// vanishing is a session of three messages; a client may be gone behind any octet of it.
const vanishing = "LHLO client.example.org\r\n" +
	"MAIL FROM:<a@example.org> SIZE=20\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<full@example.org>\r\nDATA\r\n" +
	"Subject: x\r\n\r\n..\r\n.\r\n" +
	"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n.\r\n" +
	"MAIL FROM:<>\r\nRCPT TO:<c@example.org>\r\nBDAT 3\r\nx\r\nBDAT 4 LAST\r\n\r\ny\n" +
	"QUIT\r\n"

// complete counts the messages whose end of data lies within data.
func complete(data string) (n int) {
	for _, end := range []string{"\r\n..\r\n.\r\n", "DATA\r\n.\r\n", "LAST\r\n\r\ny\n"} {
		n += bytes.Count([]byte(data), []byte(end))
	}
	return n
}

func TestVanishAnywhere(t *testing.T) {
	for cut := range len(vanishing) + 1 {
		ds := newDialogServer(t, &dialog{})
		var closed error
		ds.srv.Policy.Close = func(_ context.Context, _ *protocol.Session, err error) { closed = err }
		ds.srv.Policy.Failure = func(_ context.Context, _ *protocol.Session, err error) protocol.Reply {
			t.Errorf("cut at %d: Failure was told %v, which is no failure of ours", cut, err)
			return protocol.Reply{}
		}
		var failed error // what the handler's body ended with, if not io.EOF
		next := ds.srv.Handler
		ds.srv.Handler = protocol.HandlerFunc(func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			err := next.Deliver(ctx, tx, body)
			failed = errors.Join(failed, err)
			return err
		})
		conn := &scriptConn{pieces: [][]byte{[]byte(vanishing[:cut])}}
		err := ds.srv.ServeConn(context.Background(), conn)
		if want := complete(vanishing[:cut]); len(ds.messages) != want {
			t.Fatalf("cut at %d: %d messages handed over, want %d: %q", cut, len(ds.messages), want, ds.messages)
		}
		if failed != nil && !errors.Is(failed, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: the handler read %v", cut, failed)
		}
		if done := cut == len(vanishing); done != (err == nil) || err != closed {
			t.Fatalf("cut at %d: ServeConn returned %v and Close was told %v", cut, err, closed)
		}
		if n := ds.srv.Sessions(); n != 0 {
			t.Fatalf("cut at %d: %d sessions left", cut, n)
		}
	}
}

// TestVanishOnSocket does the same to one running server, closing politely, by
// reset and without a word in turn, and has it serve a message afterwards.
func TestVanishOnSocket(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr := "127.0.0.1:0"
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
			}
			l, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			ds := newDialogServer(t, &dialog{})
			var ended atomic.Int64
			over := make(chan struct{}, len(vanishing)+2)
			ds.srv.Policy.Close = func(context.Context, *protocol.Session, error) { ended.Add(1); over <- struct{}{} }
			go ds.srv.Serve(l)
			defer ds.srv.Close()

			least, most := 0, 0
			for cut := range len(vanishing) + 1 {
				conn, err := net.Dial(network, l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, vanishing[:cut])
				n := complete(vanishing[:cut])
				most += n
				switch cut % 3 {
				case 0: // the client says no more, and listens
					conn.(interface{ CloseWrite() error }).CloseWrite()
					if _, err := io.ReadAll(conn); err != nil {
						t.Fatalf("cut at %d: %v", cut, err)
					}
					least += n
				case 1:
					if tcp, ok := conn.(*net.TCPConn); ok {
						tcp.SetLinger(0) // a reset
					}
				}
				conn.Close()
			}
			for range len(vanishing) + 1 {
				select {
				case <-over:
				case <-time.After(patience):
					t.Fatalf("%d of %d sessions ended", ended.Load(), len(vanishing)+1)
				}
			}
			ds.mu.Lock()
			got := len(ds.messages)
			ds.mu.Unlock()
			// Who does not listen may not be listened to any more, whatever was sent.
			if got < least || got > most {
				t.Errorf("%d messages handed over, want %d to %d", got, least, most)
			}
			conn, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, vanishing)
			out, err := io.ReadAll(conn)
			if err != nil || !bytes.HasSuffix(out, []byte("221 2.0.0 Bye\r\n")) {
				t.Errorf("afterwards: %q, %v", out, err)
			}
		})
	}
}

// TestVanishAfterTheData: a client that does not wait for the replies changes
// nothing for the recipients, and nothing for the context.
func TestVanishAfterTheData(t *testing.T) {
	client, server := net.Pipe()
	gone := make(chan struct{})
	result := make(chan error, 1)
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Handler: protocol.HandlerFunc(
		func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			if _, err := body.WriteTo(io.Discard); err != nil {
				return err
			}
			<-gone
			err := tx.Settle(0, protocol.Reply{})
			result <- errors.Join(err, ctx.Err())
			return nil
		})}
	served := make(chan error, 1)
	go func() { served <- srv.ServeConn(context.Background(), server) }()
	go io.Copy(io.Discard, client)
	io.WriteString(client, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\nx\r\n.\r\n")
	client.Close()
	close(gone)
	if err := <-result; err != nil {
		t.Errorf("the handler met %v", err)
	}
	if err := <-served; err == nil {
		t.Error("ServeConn returned nil for a client that was gone")
	}
}
