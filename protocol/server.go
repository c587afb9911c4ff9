package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is the protocol that a server speaks.
type Mode uint8

const (
	SMTP Mode = iota // RFC 5321: one reply for a message
	LMTP             // RFC 2033: one reply for each recipient
)

func (m Mode) String() string {
	if m == LMTP {
		return "LMTP"
	}
	return "SMTP"
}

// Ext is a set of service extensions to announce.
type Ext uint32

const (
	ExtPipelining Ext = 1 << iota // RFC 2920
	ExtEnhanced                   // ENHANCEDSTATUSCODES, RFC 2034
	Ext8BitMIME                   // RFC 6152
	ExtSize                       // RFC 1870
	ExtSMTPUTF8                   // RFC 6531; always on in LMTP mode, where not offering it bounces mail
	ExtHelp                       // HELP in the EHLO reply

	DefaultExt = ExtPipelining | ExtEnhanced | Ext8BitMIME | ExtSize | ExtSMTPUTF8 | ExtHelp
)

// Newlines says what becomes of a message with a CR or LF that stands alone. In
// no case does one of them end the message.
type Newlines uint8

const (
	// NewlinesDefault is NewlinesPreserve in LMTP mode, since refusing would
	// bounce mail that an MTA has accepted, and NewlinesReject in SMTP mode.
	NewlinesDefault  Newlines = iota
	NewlinesPreserve          // pass on as it came; command lines may end with a lone LF too
	NewlinesReject            // refuse the message with 550 5.6.0 (RFC 5321 section 2.3.8)
)

// Server serves sessions. Set its fields before the first use and leave them
// alone afterwards; its methods are safe for concurrent use. One Server may
// serve several listeners. The zero value is a usable SMTP server that accepts
// and discards.
type Server struct {
	Mode     Mode
	Hostname string  // first word of the greeting; default os.Hostname
	Ident    string  // rest of the greeting; default "lmtpd"
	Handler  Handler // nil: accept and discard
	Policy   Policy
	Params   ParamFunc // parameters of MAIL and RCPT beyond those known
	Ext      Ext       // 0: DefaultExt
	Limits   Limits
	Timeouts Timeouts
	Newlines Newlines
	// Log gets what goes wrong outside of any reply: failed accepts, panics.
	// nil: slog.Default.
	Log *slog.Logger
	// BaseContext and ConnContext make the context that hooks and the handler
	// get; both optional, as in net/http.
	BaseContext func(net.Listener) context.Context
	ConnContext func(context.Context, net.Conn) context.Context

	once     sync.Once
	hostname string
	limits   Limits
	timeouts Timeouts
	ext      Ext
	newlines Newlines
	lastID   atomic.Uint64

	mu        sync.Mutex
	listeners map[*onceListener]struct{}
	sessions  map[*Session]struct{}
	evicting  int           // sessions told to make room that are not gone yet
	closing   atomic.Bool   // set under mu, read by sessions without it
	drained   chan struct{} // closed when closing and no session is left
}

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("protocol: server closed")

// Handler takes the messages of a server.
type Handler interface {
	// Deliver is called once the first octet of the body may be read, in the
	// session's goroutine. It settles recipients with tx.Settle, or leaves that
	// to its return value, which holds for all it did not settle: nil is 250, a
	// Reply is that reply, any other error is 451 4.3.0. In SMTP mode the return
	// value is the one reply.
	//
	// A message is complete only when body has given io.EOF: commit nothing
	// before. Any other error of body means that the server will refuse the
	// message, or that the client is gone, whatever Deliver returns. A body that
	// is not read to its end is drained by the server.
	//
	// tx and body are valid until Deliver returns. ctx is cancelled when the
	// server is closed by force and when Timeouts.Deliver has passed since the
	// end of the data, but not when the client goes away: past the end of the
	// data that would make duplicates, not savings.
	Deliver(ctx context.Context, tx *Transaction, body *Body) error
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(context.Context, *Transaction, *Body) error

// Deliver calls f.
func (f HandlerFunc) Deliver(ctx context.Context, tx *Transaction, body *Body) error {
	return f(ctx, tx, body)
}

// Discard accepts every message and drops it.
var Discard Handler = HandlerFunc(func(_ context.Context, _ *Transaction, body *Body) error {
	_, err := body.WriteTo(io.Discard)
	return err
})

// PanicError is a panic in a hook or handler, as Policy.Failure gets it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func (srv *Server) init() {
	srv.once.Do(func() {
		srv.hostname = srv.Hostname
		if srv.hostname == "" {
			srv.hostname, _ = os.Hostname()
		}
		if srv.hostname == "" {
			srv.hostname = "localhost"
		}
		srv.limits = srv.Limits.withDefaults()
		srv.timeouts = srv.Timeouts.withDefaults()
		srv.ext = srv.Ext
		if srv.ext == 0 {
			srv.ext = DefaultExt
		}
		if srv.Mode == LMTP {
			srv.ext |= ExtSMTPUTF8
		}
		srv.newlines = srv.Newlines
		if srv.newlines == NewlinesDefault {
			srv.newlines = NewlinesReject
			if srv.Mode == LMTP {
				srv.newlines = NewlinesPreserve
			}
		}
		// Session numbers that differ from those of the last run keep log
		// lines of two runs apart.
		srv.lastID.Store(uint64(time.Now().Unix()) << 24)
		srv.mu.Lock()
		srv.listeners = make(map[*onceListener]struct{})
		srv.sessions = make(map[*Session]struct{})
		srv.drained = make(chan struct{})
		srv.mu.Unlock()
	})
}

func (srv *Server) log() *slog.Logger {
	if srv.Log != nil {
		return srv.Log
	}
	return slog.Default()
}

// ListenAndServe listens on a network address ("tcp", "unix") and serves it.
func (srv *Server) ListenAndServe(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return srv.Serve(l)
}

// Serve accepts connections until the server or l is closed, and serves each in
// a goroutine of its own. It closes l, and returns ErrServerClosed after Shutdown
// and Close. In LMTP mode it refuses TCP port 25 (RFC 2033 section 5).
func (srv *Server) Serve(l net.Listener) error {
	srv.init()
	ol := &onceListener{Listener: l}
	defer ol.Close()
	if a, ok := l.Addr().(*net.TCPAddr); ok && srv.Mode == LMTP && a.Port == 25 {
		return errors.New("protocol: LMTP must not be served on TCP port 25 (RFC 2033 section 5)")
	}
	if !srv.trackListener(ol) {
		return ErrServerClosed
	}
	defer srv.untrackListener(ol)

	ctx := context.Background()
	if srv.BaseContext != nil {
		ctx = srv.BaseContext(l)
	}
	var delay time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			if srv.closing.Load() {
				return ErrServerClosed
			}
			if !temporary(err) {
				return err
			}
			// Out of descriptors: take one from whoever idles longest.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			srv.log().Error("accept failed, trying again", "error", err, "delay", delay)
			srv.evict()
			time.Sleep(delay)
			continue
		}
		delay = 0
		go srv.ServeConn(ctx, conn)
	}
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// ServeConn serves one session on a connection that came from anywhere (inetd,
// net.Pipe, a test) and closes it. It returns when the session has ended: nil
// after QUIT or a close that the server wanted, else the reason.
func (srv *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	srv.init()
	defer conn.Close()
	if srv.ConnContext != nil {
		ctx = srv.ConnContext(ctx, conn)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newSession(srv, conn, cancel)
	switch admitted, crowded := srv.admit(s); {
	case crowded:
		s.wire.put(replyCrowded, false, true)
		s.wire.flush()
		return nil
	case !admitted:
		return ErrServerClosed
	}
	defer srv.release(s)
	return s.serve(ctx)
}

// admit takes the session in, and makes room for it where the limit is reached.
func (srv *Server) admit(s *Session) (admitted, crowded bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Load() {
		return false, false
	}
	if n := srv.limits.Sessions; n >= 0 && len(srv.sessions)-srv.evicting >= n {
		// Those leaving may linger; they too must not grow without bound.
		if srv.evicting > n || !srv.evictLocked() {
			return false, true
		}
	}
	srv.sessions[s] = struct{}{}
	return true, false
}

func (srv *Server) evict() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.evictLocked()
}

// evictLocked tells the session that has idled longest outside a transaction to
// go, and reports whether there was one.
func (srv *Server) evictLocked() bool {
	for range 3 { // the one found may have become busy meanwhile
		var oldest *Session
		var since time.Time
		for s := range srv.sessions {
			if t, ok := s.idle.since(); ok && (oldest == nil || t.Before(since)) {
				oldest, since = s, t
			}
		}
		if oldest == nil {
			return false
		}
		if oldest.idle.interrupt(oldest.wire.conn, replyCrowded) {
			oldest.evicted = true
			srv.evicting++
			return true
		}
	}
	return false
}

func (srv *Server) release(s *Session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if s.evicted {
		srv.evicting--
	}
	delete(srv.sessions, s)
	srv.checkDrained()
}

func (srv *Server) checkDrained() {
	if srv.closing.Load() && len(srv.sessions) == 0 {
		select {
		case <-srv.drained:
		default:
			close(srv.drained)
		}
	}
}

// Sessions is the number of sessions open now.
func (srv *Server) Sessions() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.sessions)
}

// Shutdown closes the listeners and ends each session with 421 4.3.2: at once
// where it waits for a command outside a transaction, otherwise when its
// transaction is over and its replies are sent. When ctx ends first, the
// remaining connections are closed by force and the context's error is returned.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.beginClosing()
	srv.mu.Lock()
	for s := range srv.sessions {
		s.idle.interrupt(s.wire.conn, replyShutdown)
	}
	srv.checkDrained()
	srv.mu.Unlock()
	select {
	case <-srv.drained:
		return nil
	case <-ctx.Done():
		srv.Close()
		return ctx.Err()
	}
}

// Close closes the listeners and all connections at once, cancels the context of
// every handler that runs, and waits for none of them.
func (srv *Server) Close() error {
	srv.beginClosing()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.cancel()
		s.wire.conn.Close()
	}
	srv.checkDrained()
	return nil
}

func (srv *Server) beginClosing() {
	srv.init()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.closing.Store(true)
	for l := range srv.listeners {
		l.Close()
	}
}

func (srv *Server) trackListener(l *onceListener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Load() {
		return false
	}
	srv.listeners[l] = struct{}{}
	return true
}

func (srv *Server) untrackListener(l *onceListener) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.listeners, l)
}

// greeting is the text of the 220 line.
func (srv *Server) greeting() string {
	ident := srv.Ident
	if ident == "" {
		ident = "lmtpd"
	}
	return strings.TrimSpace(srv.hostname + " " + srv.Mode.String() + " " + ident)
}

type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
