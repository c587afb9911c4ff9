package protocol_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// TestShutdownStorm: Shutdown comes amid clients that deliver, look whether their
// connection lives (RSET), or have just come. None of them loses a reply to a message,
// or is sent away from a transaction that it has begun.
func TestShutdownStorm(t *testing.T) {
	const clients, rounds = 24, 6
	for round := range rounds {
		var taken, acknowledged atomic.Int64
		begin := make(chan struct{})
		srv := &protocol.Server{
			Mode: protocol.LMTP, Log: quiet,
			Timeouts: protocol.Timeouts{Newcomer: time.Duration(round%3) * 10 * time.Millisecond},
			Handler: protocol.HandlerFunc(func(_ context.Context, _ *protocol.Transaction, body *protocol.Body) error {
				if _, err := body.WriteTo(io.Discard); err != nil {
					return err
				}
				if taken.Add(1) == clients {
					close(begin)
				}
				return nil
			}),
		}
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		served := background(func() error { return srv.Serve(l) })
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				c := stormClient{dial: func() (net.Conn, error) { return net.Dial("unix", l.Addr().String()) }, probes: n%2 == 0, each: 1 + n%4}
				got, err := c.run()
				acknowledged.Add(int64(got))
				if err != nil {
					t.Errorf("round %d, client %d: %v", round, n, err)
				}
			})
		}
		<-begin
		down := background(func() error { return srv.Shutdown(context.Background()) })
		if err := result(t, down); err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		all.Wait()
		if err := result(t, served); err != protocol.ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
		if taken.Load() != acknowledged.Load() {
			t.Errorf("round %d: %d messages taken, %d acknowledged", round, taken.Load(), acknowledged.Load())
		}
	}
}

// stormClient makes connections, delivers some messages on each, and goes on until it
// is sent away or finds nobody.
type stormClient struct {
	dial   func() (net.Conn, error)
	probes bool // RSET before each transaction
	each   int  // messages for a connection

	conn net.Conn
	in   *bufio.Reader
	got  int
}

// errAway: 421, or nobody there, where that may be.
var errAway = errors.New("sent away")

func (c *stormClient) run() (int, error) {
	for {
		if err := c.session(); err == errAway {
			return c.got, nil
		} else if err != nil {
			return c.got, err
		}
	}
}

func (c *stormClient) session() (err error) {
	if c.conn, err = c.dial(); err != nil {
		return errAway
	}
	defer c.conn.Close()
	c.conn.SetDeadline(time.Now().Add(patience))
	c.in = bufio.NewReader(c.conn)
	if err := c.ask("", true); err != nil {
		return err
	}
	if err := c.ask("LHLO client.example.org\r\n", true); err != nil {
		return err
	}
	for range c.each {
		if c.probes {
			if err := c.ask("RSET\r\n", true); err != nil {
				return err
			}
		}
		if err := c.ask("MAIL FROM:<>\r\n", true); err != nil {
			return err
		}
		for _, line := range []string{"RCPT TO:<b@example.org>\r\n", "DATA\r\n", "x\r\n.\r\n"} {
			if err := c.ask(line, false); err != nil {
				return err
			}
		}
		c.got++
	}
	return c.ask("QUIT\r\n", true)
}

// ask sends and takes a reply; away says that 421, or the end of a connection that has
// not been greeted or was told 421, may come in its place.
func (c *stormClient) ask(line string, away bool) error {
	_, werr := io.WriteString(c.conn, line)
	for {
		reply, err := c.in.ReadString('\n')
		switch {
		case strings.HasPrefix(reply, "421 4.3.2 ") && away:
			return errAway
		case line == "" && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)):
			return errAway // it was in the queue of the listener
		case err != nil:
			return fmt.Errorf("after %q: %q, %w (%v)", line, reply, err, werr)
		case reply[0] != '2' && reply[0] != '3':
			return fmt.Errorf("after %q: %q", line, reply)
		case reply[3] != '-':
			return nil
		}
	}
}
