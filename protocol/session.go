package protocol

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// Session is one connection. Hooks and the handler may read its fields, and use
// Value as they like, in the session's goroutine.
type Session struct {
	// ID is unique within the process, and all but unique across its restarts.
	ID   uint64
	Mode Mode
	// RemoteAddr and LocalAddr are the client's address and the one that it
	// connected to: those of the connection, or what a trusted peer says.
	RemoteAddr net.Addr
	LocalAddr  net.Addr
	// PeerAddr is the other end of the connection, whoever that speaks for.
	PeerAddr net.Addr
	// RemoteName is the client's host name, if a trusted peer gave one (XCLIENT NAME).
	RemoteName string
	// Login is the user name that a trusted peer gave (XCLIENT LOGIN).
	Login string
	// PeerCred is who connected, where that was by a Unix socket on Linux; else nil.
	PeerCred *PeerCred
	// Proxy is what a trusted proxy said with the PROXY protocol; else nil.
	Proxy *ProxyHeader
	// TLS is the state of the connection once it is secured; else nil. The client's
	// certificates are in it, verified as TLSConfig.ClientAuth says.
	TLS *tls.ConnectionState
	// Identity is who the client has shown to be with AUTH; else nil.
	Identity *Identity
	// Hello is the name that the client gave itself; "" before the first
	// accepted HELO, EHLO or LHLO.
	Hello string
	// Extended is set by EHLO and LHLO, and cleared by HELO.
	Extended bool
	// MessageSize is the limit of this session, at first that of Server.Limits; a
	// negative one is none. A hook may change it, for this peer, before MAIL.
	MessageSize int64
	// Mechanisms, if not nil, are the only ones of Server.Auth that this session is
	// offered, in upper case. A hook may set it, for this peer, before EHLO.
	Mechanisms []string
	Value      any

	srv     *Server
	conn    net.Conn // the connection itself, below TLS
	wire    *wire
	cancel  context.CancelFunc
	idle    idleState
	evicted bool // told to make room; guarded by srv.mu

	state        State
	tx           *Transaction   // open transaction or nil
	unseen       []*Transaction // those whose replies the client may not have seen
	clean        bool           // the client has closed the connection without an error
	trust        Trust
	insecure     bool            // policy did not like the TLS that it got
	forward      Forward         // XFORWARD since the last transaction
	refusedRcpts int             // recipients of it that were refused
	chunks       *chunks         // a message by BDAT, while its handler runs
	refused      bool            // the last MAIL was refused: what was pipelined behind it is no error
	args         strings.Builder // see keep
	calls        map[string]int  // by verb, where that has a limit
	errors       int
	unknowns     int
	last         Reply // the last one that a command has put, for Trace
	broken       error // what Prompt has met
	err          error // why the session ends, if not because the server wants it
}

func newSession(srv *Server, conn net.Conn, cancel context.CancelFunc) *Session {
	s := &Session{
		ID: srv.lastID.Add(1), Mode: srv.Mode,
		RemoteAddr: conn.RemoteAddr(), PeerAddr: conn.RemoteAddr(), LocalAddr: conn.LocalAddr(), PeerCred: peerCred(conn),
		MessageSize: srv.limits.MessageSize,
		srv:         srv, cancel: cancel, conn: conn,
		wire: newWire(conn, srv.timeouts.Write),
	}
	if t := srv.Trace; t != nil && t.Wire != nil {
		s.wire.trace = func(reply []byte) { t.Wire(s, ToClient, reply) }
	}
	return s
}

// replied is what a command returns that has put its reply itself.
var replied = Reply{Code: -1}

// serve runs the session from the greeting to its end.
func (s *Session) serve(ctx context.Context) (err error) {
	defer s.closed(ctx, &err)
	defer func() {
		if v := recover(); v != nil {
			// The state is unknown after a panic: this session ends, the others
			// go on.
			err = s.panicked(ctx, v)
		}
	}()
	s.enter(StateNew)
	if f := s.srv.Trust; f != nil {
		s.trust = f(s)
	}
	if s.trust&TrustProxy != 0 {
		switch err := s.proxied(ctx); err {
		case nil:
		case errInterrupted: // there is nobody to reply to
			return nil
		default:
			return err
		}
	}
	if c, ok := s.conn.(*tls.Conn); ok {
		if r := s.handshake(ctx, c); r.Code != replied.Code {
			return s.end(r)
		}
	}
	if r := s.greet(ctx); r.Then != Continue {
		return s.end(r)
	}
	s.enter(StateIdle)
	for {
		r, err := s.next(ctx)
		if err != nil {
			return s.lost(err)
		}
		if r.Then != Continue {
			return s.end(r)
		}
	}
}

// next carries out the next command and puts its reply.
func (s *Session) next(ctx context.Context) (Reply, error) {
	line, err := s.wire.line(s.lineLimit, s.wait)
	s.idle.busy()
	if err == nil || err == errLineTooLong {
		s.seen(ctx)
	}
	var r Reply
	var traced []byte
	var began time.Time
	if s.srv.Trace != nil && err == nil {
		// The line is in a buffer that the command may use up.
		traced, began = bytes.Clone(redact(line)), time.Now()
		s.traceLine(traced)
	}
	switch err {
	case nil:
		r = s.command(ctx, line)
	case errLineTooLong:
		r = s.fault(replyLineLong)
	default:
		return r, err
	}
	if s.broken != nil {
		return r, s.broken
	}
	if r.Code != replied.Code && r.Then != CloseNow {
		s.put(r)
	}
	if traced != nil {
		s.traceCommand(traced, began)
	}
	return r, nil
}

// put queues a reply to a command.
func (s *Session) put(r Reply) {
	s.last = r
	if s.wire.put(r, s.tx != nil && s.tx.Mail.UTF8, s.enhanced()) {
		s.wire.push()
	}
}

// putPlain queues a reply without an enhanced code: the greeting and the answers to
// HELO, EHLO and LHLO have none (RFC 2034 section 3).
func (s *Session) putPlain(r Reply) {
	s.last = r
	s.wire.put(r, false, false)
}

func (s *Session) enhanced() bool { return s.srv.ext&ExtEnhanced != 0 }

// closed tells the policy that the session is over. A panic of that hook must not
// reach the server.
func (s *Session) closed(ctx context.Context, err *error) {
	defer func() {
		if v := recover(); v != nil {
			s.srv.log().Error("panic in a hook", "session", s.ID, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	s.resolveAll(ctx)
	defer s.enter(StateClosed)
	if f := s.srv.Policy.Close; f != nil {
		f(ctx, s, *err)
	}
}

func (s *Session) greet(ctx context.Context) Reply {
	def := Reply{Code: 220, Text: s.srv.greeting()}
	r := call(s.srv.Policy.Connect, ctx, s).or(def)
	switch {
	case r.Then == CloseNow:
	case r.OK():
		r.Code = 220
		s.putPlain(r)
	default:
		r.Then = CloseAfter
		s.put(r)
	}
	return r
}

// wait is called when the session has run out of input. Outside a transaction a
// server that wants to end the session may do it here.
func (s *Session) wait() error {
	// Idle first, then the replies: who has read a reply finds the session idle.
	if err := s.idle.begin(s.tx == nil, s.srv); err != nil {
		return err
	}
	if err := s.wire.flush(); err != nil {
		return err
	}
	if s.tx == nil {
		s.wire.shrink()
	}
	return s.idle.arm(s.conn, s.srv, s.srv.timeouts.Command)
}

// lost ends the session after an error of the connection.
func (s *Session) lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || err == errInterrupted {
		if r := s.idle.reason(); r.Code != 0 {
			return s.finalReply(r)
		}
		if s.srv.closing.Load() && s.tx == nil {
			return s.finalReply(replyShutdown)
		}
		s.finalReply(replyIdle)
		return err
	}
	if err == errFlood {
		s.finalReply(replyErrors)
	}
	if err == io.EOF && s.tx != nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *Session) finalReply(r Reply) error {
	s.put(r)
	return s.end(r)
}

// end closes the session with a reply that has been put. It is no error, unless
// something went wrong before: the server wanted it.
func (s *Session) end(r Reply) error {
	// The replies to what came before are due even where this one is not sent.
	if err := s.wire.flush(); err != nil {
		return err
	}
	if s.err == nil {
		s.ended(s.wire.linger())
	}
	return s.err
}

func (s *Session) panicked(ctx context.Context, v any) error {
	s.srv.counters.panics.Add(1)
	e, ok := v.(*PanicError) // caught before, in another goroutine
	if !ok {
		e = &PanicError{Value: v, Stack: debug.Stack()}
	}
	s.srv.log().Error("panic in a hook", "session", s.ID, "panic", e.Value, "stack", string(e.Stack))
	r := Reply{Code: 421, Enhanced: Enhanced{4, 3, 0}, Text: "Error: internal failure, closing channel", Then: CloseAfter}
	func() {
		defer func() { recover() }() // a second panic changes nothing
		r = call1(s.srv.Policy.Failure, ctx, s, error(e)).or(r)
	}()
	r.Then = CloseAfter
	s.put(r)
	s.end(r)
	return e
}

// fault counts a command that was wrong in itself, and gives up with the client
// when there are too many.
func (s *Session) fault(r Reply) Reply {
	s.errors++
	s.srv.counters.errors.Add(1)
	if n := s.srv.limits.Errors; n > 0 && s.errors >= n {
		return replyErrors
	}
	return r
}
