package protocol

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// costConn is a connection that counts writes and gives what it is told to.
type costConn struct {
	in     io.Reader
	writes [][]byte
	keep   bool
}

func (c *costConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *costConn) Write(p []byte) (int, error) {
	if c.keep {
		c.writes = append(c.writes, append([]byte(nil), p...))
	}
	return len(p), nil
}

func (c *costConn) Close() error                     { return nil }
func (c *costConn) LocalAddr() net.Addr              { return nil }
func (c *costConn) RemoteAddr() net.Addr             { return nil }
func (c *costConn) SetDeadline(time.Time) error      { return nil }
func (c *costConn) SetReadDeadline(time.Time) error  { return nil }
func (c *costConn) SetWriteDeadline(time.Time) error { return nil }

// bench makes a session that has been greeted.
func bench(srv *Server, conn net.Conn) (s *Session, run func(line string)) {
	srv.init()
	s = newSession(srv, conn, func() {})
	run = func(line string) {
		buf := append([]byte(nil), line...)
		r := s.command(context.Background(), buf)
		if r.Code != replied.Code {
			s.put(r)
		}
		s.wire.flush()
	}
	run("LHLO client.example.org\r")
	return s, run
}

// TestAllocations holds the budget of a session: nothing for what is refused or
// trivial, little for what is accepted.
func TestAllocations(t *testing.T) {
	no := Reply{Code: 550, Enhanced: Enhanced{5, 1, 1}, Text: "No such user"}
	srv := &Server{Mode: LMTP, Policy: Policy{Rcpt: func(_ context.Context, _ *Transaction, r *Recipient) Reply {
		if r.Path.Local == "unknown" {
			return no
		}
		return Reply{}
	}}, Limits: Limits{Errors: -1, Recipients: 1 << 30}}
	for _, c := range []struct {
		name  string
		setup []string
		lines []string
		most  float64
	}{
		{"NOOP", nil, []string{"NOOP\r"}, 0},
		{"RSET", nil, []string{"RSET\r"}, 0},
		{"RCPT before MAIL", nil, []string{"RCPT TO:<b@example.org>\r"}, 0},
		{"RCPT refused", []string{"MAIL FROM:<>\r", "RCPT TO:<b@example.org>\r"}, []string{"RCPT TO:<unknown@example.org>\r"}, 0},
		{"RCPT malformed", []string{"MAIL FROM:<>\r", "RCPT TO:<b@example.org>\r"}, []string{"RCPT TO:<a@b@example.org>\r"}, 0},
		{"MAIL", nil, []string{"MAIL FROM:<a@example.org> SIZE=1000 BODY=8BITMIME\r", "RSET\r"}, 3},
		{"RCPT", []string{"MAIL FROM:<>\r"}, []string{"RCPT TO:<user@example.org>\r"}, 3},
	} {
		s, _ := bench(srv, &costConn{})
		run := func(line []byte) {
			r := s.command(context.Background(), line)
			s.put(r)
			s.wire.flush()
		}
		for _, l := range c.setup {
			run([]byte(l))
		}
		var lines [][]byte
		for _, l := range c.lines {
			lines = append(lines, []byte(l))
		}
		got := testing.AllocsPerRun(500, func() {
			for _, l := range lines {
				run(l)
			}
		})
		if got > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, got, c.most)
		}
	}
}

// TestAllocationsOfContent: a long message costs as many as a short one.
func TestAllocationsOfContent(t *testing.T) {
	cost := func(lines int) float64 {
		data := strings.Repeat("..a line of some length, as they come\r\n", lines) + ".\r\n"
		in := strings.NewReader(data)
		s, run := bench(&Server{Mode: LMTP, Handler: Discard}, &costConn{in: in})
		return testing.AllocsPerRun(20, func() {
			in.Reset(data)
			run("MAIL FROM:<a@example.org>\r")
			run("RCPT TO:<b@example.org>\r")
			run("DATA\r")
			if s.tx != nil {
				t.Fatal("the message was not taken")
			}
		})
	}
	short, long := cost(1), cost(50000)
	if short > 10 { // three are the test's
		t.Errorf("%v allocations for a transaction", short)
	}
	if long > short+1 { // a buffer that the collector took from the pool
		t.Errorf("%v allocations for 50000 lines, %v for one", long, short)
	}
}

// TestOneWritePerBatch: the replies to what came in one piece leave in one piece.
func TestOneWritePerBatch(t *testing.T) {
	pieces := []string{
		"LHLO client.example.org\r\n",
		"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n",
		"x\r\n.\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
		"y\r\n.\r\nQUIT\r\n",
	}
	var in []io.Reader
	for _, p := range pieces {
		in = append(in, strings.NewReader(p))
	}
	conn := &costConn{in: io.MultiReader(in...), keep: true}
	srv := &Server{Mode: LMTP}
	if err := srv.ServeConn(context.Background(), conn); err != nil {
		t.Fatal(err)
	}
	if want := 1 + len(pieces); len(conn.writes) != want {
		t.Errorf("%d writes, want %d: %q", len(conn.writes), want, conn.writes)
	}
}

// TestIdleMemory: between transactions a session holds little.
func TestIdleMemory(t *testing.T) {
	const most = 8 << 10
	sizes := make(chan int, 2)
	srv := &Server{Mode: LMTP, Policy: Policy{Noop: func(_ context.Context, s *Session, _ string) Reply {
		w := s.wire
		sizes <- cap(w.buf) + cap(w.out) + cap(w.spare) + s.args.Cap()
		if w.large != nil {
			t.Error("the large buffer was not given back")
		}
		return Reply{}
	}}}
	busy := strings.Repeat("RCPT TO:<b@example.org>\r\n", 500)
	conn := &costConn{in: io.MultiReader(
		strings.NewReader("LHLO x\r\nNOOP\r\n"),
		strings.NewReader("MAIL FROM:<a@example.org>\r\n"+busy+"DATA\r\n"),
		strings.NewReader(strings.Repeat("x\r\n", 100000)+".\r\n"),
		strings.NewReader("NOOP\r\n"),
	)}
	srv.ServeConn(context.Background(), conn)
	for range 2 {
		if n := <-sizes; n > most {
			t.Errorf("%d octets held, want at most %d", n, most)
		}
	}
}
