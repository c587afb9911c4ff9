package protocol_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// start serves config on a Unix socket until the test ends.
func start(t *testing.T, config func(*protocol.Server)) *protocoltest.Server {
	t.Helper()
	srv := protocoltest.NewUnstartedServer(protocol.LMTP, nil)
	srv.Config.Log = quiet
	if config != nil {
		config(srv.Config)
	}
	srv.StartUnix()
	t.Cleanup(srv.Close)
	return srv
}

func background(f func() error) <-chan error {
	c := make(chan error, 1)
	go func() { c <- f() }()
	return c
}

func result(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatal("it never returned")
		return nil
	}
}

// TestShutdown: the idle go at once, a transaction gets its replies, and then 421.
func TestShutdown(t *testing.T) {
	working, goOn := make(chan struct{}), make(chan struct{})
	srv := start(t, func(s *protocol.Server) {
		s.Handler = protocol.HandlerFunc(func(ctx context.Context, _ *protocol.Transaction, body *protocol.Body) error {
			if err := readAll(body); err != nil {
				return err
			}
			close(working)
			await(ctx, goOn)
			return ctx.Err()
		})
	})
	fresh, greeted, inside, delivering := srv.Dial(t), srv.Dial(t), srv.Dial(t), srv.Dial(t)
	fresh.Expect("220")
	greeted.Hello("LHLO")
	greeted.Raw("NOO") // half a command is none
	inside.Hello("LHLO")
	inside.Cmd("250", "MAIL FROM:<a@example.org>")
	delivering.Hello("LHLO")
	envelope(delivering, 2)
	<-working

	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	for _, c := range []*protocoltest.Client{fresh, greeted} {
		c.Expect("421 4.3.2")
		c.EOF()
	}
	fresh.Close()
	greeted.Close()
	if _, err := net.Dial(srv.Network, srv.Addr); err == nil {
		t.Error("the listener is still open")
	}
	close(goOn)
	delivering.Expect("250 2.0.0")
	delivering.Expect("250 2.0.0")
	delivering.Expect("421 4.3.2")
	delivering.EOF()
	delivering.Close()
	inside.Cmd("250", "RCPT TO:<b@example.org>")
	inside.Cmd("250", "RSET")
	inside.Expect("421 4.3.2")
	inside.EOF()
	inside.Close()
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
	if n := srv.Config.Sessions(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	if err := srv.Config.Shutdown(context.Background()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

// TestShutdownPipelined: a MAIL that was already on its way is answered 421.
func TestShutdownPipelined(t *testing.T) {
	inHook, goOn := make(chan struct{}), make(chan struct{})
	srv := start(t, func(s *protocol.Server) {
		s.Policy.Noop = func(ctx context.Context, _ *protocol.Session, _ string) protocol.Reply {
			close(inHook)
			await(ctx, goOn)
			return protocol.Reply{}
		}
	})
	c := srv.Dial(t)
	c.Hello("LHLO")
	c.Raw("NOOP\r\nMAIL FROM:<a@example.org>\r\n")
	<-inHook
	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	for _, err := net.Dial(srv.Network, srv.Addr); err == nil; _, err = net.Dial(srv.Network, srv.Addr) {
	}
	close(goOn)
	c.Expect("250 2.0.0")
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}

// A handler that would take too long is told to end, and its client still gets replies.
func TestShutdownDrain(t *testing.T) {
	working := make(chan struct{})
	srv := start(t, func(s *protocol.Server) {
		s.Timeouts.Drain = time.Millisecond
		s.Handler = protocol.HandlerFunc(func(ctx context.Context, _ *protocol.Transaction, body *protocol.Body) error {
			if err := readAll(body); err != nil {
				return err
			}
			close(working)
			<-ctx.Done()
			return ctx.Err()
		})
	})
	c := srv.Dial(t)
	c.Hello("LHLO")
	envelope(c, 2)
	<-working
	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	c.Expect("451 4.3.0")
	c.Expect("451 4.3.0")
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if err := result(t, down); err != nil {
		t.Error(err)
	}
}

// TestShutdownByForce: when its context ends, what is left is cut, and the handler's
// context with it.
func TestShutdownByForce(t *testing.T) {
	working := make(chan struct{})
	cancelled := make(chan error, 1)
	srv := start(t, func(s *protocol.Server) {
		s.Handler = protocol.HandlerFunc(func(ctx context.Context, _ *protocol.Transaction, body *protocol.Body) error {
			close(working)
			<-ctx.Done()
			cancelled <- ctx.Err()
			return ctx.Err()
		})
	})
	c := srv.Dial(t)
	c.Hello("LHLO")
	envelope(c, 1)
	<-working
	ctx, cancel := context.WithCancel(context.Background())
	down := background(func() error { return srv.Config.Shutdown(ctx) })
	cancel()
	if err := result(t, down); err != context.Canceled {
		t.Errorf("Shutdown returned %v", err)
	}
	if err := result(t, cancelled); err != context.Canceled {
		t.Errorf("the handler's context: %v", err)
	}
	c.EOF()
}

func TestServeAfterClose(t *testing.T) {
	srv := &protocol.Server{Log: quiet}
	if err := srv.Close(); err != nil {
		t.Errorf("Close of an unused server: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Serve(l); err != protocol.ErrServerClosed {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener was left open")
	}
	client, server := net.Pipe()
	served := background(func() error { return srv.ServeConn(context.Background(), server) })
	if out, _ := io.ReadAll(client); !strings.HasPrefix(string(out), "421 4.3.2 ") {
		t.Errorf("a connection after Close got %q", out)
	}
	if err := result(t, served); err != protocol.ErrServerClosed {
		t.Errorf("ServeConn returned %v", err)
	}
}

func TestListenAndServe(t *testing.T) {
	srv := &protocol.Server{Log: quiet}
	if err := srv.ListenAndServe("unix", t.TempDir()+"/missing/s"); err == nil {
		t.Error("no error for a directory that does not exist")
	}
	addr := t.TempDir() + "/s"
	served := background(func() error { return srv.ListenAndServe("unix", addr) })
	var conn net.Conn
	for conn == nil {
		conn, _ = net.Dial("unix", addr)
		select {
		case err := <-served:
			t.Fatal(err)
		default:
		}
	}
	c := protocoltest.NewClient(t, conn)
	c.Hello("EHLO")
	srv.Close()
	c.EOF()
	if err := result(t, served); err != protocol.ErrServerClosed {
		t.Errorf("ListenAndServe returned %v", err)
	}
}

// scriptListener's Accept gives what it was told to.
type scriptListener struct {
	addr    net.Addr
	results chan any // net.Conn or error
	once    sync.Once
	closed  chan struct{}
}

func newScriptListener(addr net.Addr) *scriptListener {
	return &scriptListener{addr: addr, results: make(chan any, 10), closed: make(chan struct{})}
}

func (l *scriptListener) Accept() (net.Conn, error) {
	select {
	case r := <-l.results:
		if err, ok := r.(error); ok {
			return nil, err
		}
		return r.(net.Conn), nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *scriptListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *scriptListener) Addr() net.Addr { return l.addr }

// busyError is a passing failure of accept, such as EMFILE.
type busyError struct{}

func (busyError) Error() string   { return "too many open files" }
func (busyError) Temporary() bool { return true }

// TestAcceptErrors: a passing error costs the longest idle session and is tried
// again, another one ends Serve.
func TestAcceptErrors(t *testing.T) {
	srv := &protocol.Server{Log: quiet}
	l := newScriptListener(&net.UnixAddr{})
	served := background(func() error { return srv.Serve(l) })
	var clients []*protocoltest.Client
	for range 2 {
		client, server := net.Pipe()
		l.results <- server
		c := protocoltest.NewClient(t, client)
		c.Expect("220")
		clients = append(clients, c)
	}
	l.results <- busyError{}
	clients[0].Expect("421 4.3.2")
	clients[1].Cmd("250", "NOOP")
	broken := errors.New("broken")
	l.results <- broken
	if err := result(t, served); err != broken {
		t.Errorf("Serve returned %v", err)
	}
	srv.Close()
}

func TestPort25(t *testing.T) {
	l := newScriptListener(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25})
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet}
	if err := result(t, background(func() error { return srv.Serve(l) })); err == nil || !strings.Contains(err.Error(), "port 25") {
		t.Errorf("LMTP on port 25: %v", err)
	}
	l = newScriptListener(l.addr)
	smtp := &protocol.Server{Log: quiet}
	served := background(func() error { return smtp.Serve(l) })
	client, server := net.Pipe()
	l.results <- server
	protocoltest.NewClient(t, client).Expect("220")
	smtp.Close()
	if err := result(t, served); err != protocol.ErrServerClosed {
		t.Errorf("SMTP on port 25: %v", err)
	}
}

// TestSessionsLimit: beyond it, the session that has idled longest outside a
// transaction makes room; where there is none, the new one is refused.
func TestSessionsLimit(t *testing.T) {
	srv := start(t, func(s *protocol.Server) { s.Limits.Sessions = 2 })
	first, second := srv.Dial(t), srv.Dial(t)
	first.Hello("LHLO")
	second.Hello("LHLO")
	first.Cmd("250", "NOOP") // now second has idled longest
	third := srv.Dial(t)
	third.Hello("LHLO")
	second.Expect("421 4.3.2")
	second.EOF()
	second.Close()
	first.Cmd("250", "MAIL FROM:<a@example.org>")
	third.Cmd("250", "MAIL FROM:<a@example.org>")
	fourth := srv.Dial(t)
	fourth.Expect("421 4.3.2")
	fourth.EOF()
	first.Cmd("250", "RSET")
	fifth := srv.Dial(t)
	fifth.Hello("LHLO")
	first.Expect("421 4.3.2")
	third.Cmd("250", "RCPT TO:<b@example.org>")
}

// TestEvictedInTransaction: one that was told to go, but had a MAIL on its way,
// finishes that transaction first.
func TestEvictedInTransaction(t *testing.T) {
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Limits: protocol.Limits{Sessions: 1}}
	// The client's MAIL arrives although the deadline has passed: the server meets
	// the interrupt after it has read the command.
	conn := newLateConn("LHLO x\r\n", "MAIL FROM:<>\r\nRCPT TO:<b>\r\n", "DATA\r\nx\r\n.\r\nNOOP\r\n")
	first := background(func() error { return srv.ServeConn(context.Background(), conn) })
	<-conn.reading
	client, server := net.Pipe()
	second := background(func() error { return srv.ServeConn(context.Background(), server) })
	protocoltest.NewClient(t, client).Expect("220")
	close(conn.goOn)
	if err := result(t, first); err != nil {
		t.Errorf("the evicted session: %v", err)
	}
	if out := conn.out.String(); !strings.HasSuffix(out, "354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 OK\r\n250 2.0.0 OK\r\n421 4.3.2 Too many sessions, try again later\r\n") {
		t.Errorf("the evicted session got %q", out)
	}
	client.Close()
	if err := result(t, second); err != io.EOF {
		t.Errorf("the new session: %v", err)
	}
}

// lateConn holds back what its client says after the first piece until goOn is
// closed, and minds no deadline.
type lateConn struct {
	scriptConn
	reading, goOn chan struct{}
	reads         int
}

func newLateConn(pieces ...string) *lateConn {
	c := &lateConn{reading: make(chan struct{}), goOn: make(chan struct{})}
	for _, p := range pieces {
		c.pieces = append(c.pieces, []byte(p))
	}
	return c
}

func (c *lateConn) Read(p []byte) (int, error) {
	if c.reads++; c.reads == 2 {
		close(c.reading)
		<-c.goOn
	}
	return c.scriptConn.Read(p)
}

func TestTimeouts(t *testing.T) {
	const soon = 5 * time.Millisecond
	var failed error
	for name, c := range map[string]struct {
		timeouts protocol.Timeouts
		say      string
		want     string
	}{
		"before the first command": {protocol.Timeouts{Command: soon}, "", "421 4.4.2"},
		"within a command":         {protocol.Timeouts{Command: soon}, "LHLO x\r\nNOO", "421 4.4.2"},
		"within a transaction":     {protocol.Timeouts{Command: soon}, "LHLO x\r\nMAIL FROM:<>\r\n", "421 4.4.2"},
		"data":                     {protocol.Timeouts{Data: soon}, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\nx\r\n", "421 4.4.2"},
		"all the data":             {protocol.Timeouts{Transaction: soon}, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\nx\r\n", "421 4.4.2"},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			failed = nil
			srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Timeouts: c.timeouts, Handler: protocol.HandlerFunc(
				func(_ context.Context, _ *protocol.Transaction, body *protocol.Body) error {
					failed = readAll(body)
					return failed
				})}
			served := background(func() error { return srv.ServeConn(context.Background(), server) })
			go io.WriteString(client, c.say)
			out, err := io.ReadAll(client)
			lines := strings.Split(strings.TrimSuffix(string(out), "\r\n"), "\r\n")
			if err != nil || !strings.HasPrefix(lines[len(lines)-1], c.want) {
				t.Errorf("got %q, %v", out, err)
			}
			if err := result(t, served); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("ServeConn returned %v", err)
			}
			if strings.Contains(c.say, "DATA") && !errors.Is(failed, os.ErrDeadlineExceeded) {
				t.Errorf("the handler read %v", failed)
			}
		})
	}
}

// TestWriteTimeout: a client that takes no reply is given up.
func TestWriteTimeout(t *testing.T) {
	_, server := net.Pipe()
	srv := &protocol.Server{Log: quiet, Timeouts: protocol.Timeouts{Write: time.Millisecond}}
	if err := result(t, background(func() error { return srv.ServeConn(context.Background(), server) })); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ServeConn returned %v", err)
	}
}

// TestDeliverTimeout: past the end of the data the handler's context has a bound.
func TestDeliverTimeout(t *testing.T) {
	srv := start(t, func(s *protocol.Server) {
		s.Timeouts.Deliver = time.Millisecond
		s.Handler = protocol.HandlerFunc(func(ctx context.Context, _ *protocol.Transaction, body *protocol.Body) error {
			if err := readAll(body); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	c := srv.Dial(t)
	c.Hello("LHLO")
	envelope(c, 1)
	c.Expect("451 4.3.0")
	c.Cmd("250", "NOOP")
}
