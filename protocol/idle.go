package protocol

import (
	"errors"
	"net"
	"sync"
	"time"
)

// idleState is what the server may know of a session that waits for a command:
// since when, and whether it may be interrupted with a closing reply. A session
// inside a transaction waits too, but is left alone. So is, where the server is
// closing, a newcomer for a moment (Timeouts.Newcomer): its client has just found the
// server open, and an MTA that is sent away then defers all mail for this host.
type idleState struct {
	mu      sync.Mutex
	settled bool // no newcomer any more: the session has begun a transaction
	// and not said since, by RSET, that it will begin another
	armed         bool // the deadline of this command is set
	interruptible bool
	start         time.Time
	why           Reply // the reply that an interrupt wants
	whyClosing    bool  // it wants it because the server is closing
}

var errInterrupted = errors.New("protocol: session interrupted by the server")

// begin notes that the session waits for a command. The server's state is read under
// the lock that interrupt takes, so that one of the two sees the other.
func (i *idleState) begin(interruptible bool, srv *Server) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if interruptible && (i.why.Code != 0 || i.unwelcome(srv)) {
		return errInterrupted
	}
	if !i.interruptible {
		i.interruptible, i.start = interruptible, time.Now()
	}
	return nil
}

// unwelcome reports whether the session may not begin a transaction: the server is
// closing, and this is no newcomer. The caller holds mu.
func (i *idleState) unwelcome(srv *Server) bool {
	return srv.closing.Load() && (i.settled || !time.Now().Before(srv.closeBy))
}

// arm sets the deadline for the whole of a command, d from now on where that is
// positive: octets that trickle in do not move it.
func (i *idleState) arm(conn net.Conn, srv *Server, d time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.interruptible && i.why.Code != 0 {
		return errInterrupted // while the replies were written
	}
	if !i.armed {
		i.armed = true
		var deadline time.Time
		if d > 0 {
			deadline = time.Now().Add(d)
		}
		if i.interruptible && srv.closing.Load() && (d <= 0 || srv.closeBy.Before(deadline)) {
			deadline = srv.closeBy
		}
		conn.SetReadDeadline(deadline)
	}
	return nil
}

// hold is begin and arm for what comes before commands, a PROXY header or a handshake.
// Who is silent then must neither take the place of others nor hold up Shutdown.
func (i *idleState) hold(conn net.Conn, srv *Server, d time.Duration) error {
	if err := i.begin(true, srv); err != nil {
		return err
	}
	return i.arm(conn, srv, d)
}

// busy notes that the session has a command to work on.
func (i *idleState) busy() {
	i.mu.Lock()
	i.armed, i.interruptible = false, false
	i.mu.Unlock()
}

// since tells when the wait began; ok is false if the session is not to be interrupted.
func (i *idleState) since() (start time.Time, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.start, i.interruptible && i.why.Code == 0
}

// reason is the reply that an interrupt wanted, if there was one.
func (i *idleState) reason() Reply {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.why
}

// ended reports whether a wait has ended with err because the server wanted it to.
func (i *idleState) ended(err error) bool {
	return err == errInterrupted || err != nil && i.reason().Code != 0
}

// mayBegin reports whether the session may begin a transaction.
func (i *idleState) mayBegin(srv *Server) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.unwelcome(srv)
}

// begun notes that the session has begun a transaction.
func (i *idleState) begun() {
	i.mu.Lock()
	i.settled = true
	i.mu.Unlock()
}

// probed notes an RSET that had nothing to reset: so Postfix looks whether a
// connection that it has kept is alive, and begins a transaction if it is.
// The RSET may have crossed with an interrupt, which then came too late.
func (i *idleState) probed() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.settled = false
	if i.whyClosing {
		i.why, i.whyClosing = Reply{}, false
	}
}

// close ends the wait of a session because the server is closing, that of a newcomer
// later.
func (i *idleState) close(conn net.Conn, srv *Server) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case !i.interruptible || i.why.Code != 0:
	case i.unwelcome(srv):
		i.why, i.whyClosing = replyShutdown, true
		conn.SetReadDeadline(time.Unix(1, 0))
	default:
		conn.SetReadDeadline(srv.closeBy)
	}
}

// interrupt ends the wait of a session with a reply; false if it was not waiting.
func (i *idleState) interrupt(conn net.Conn, why Reply) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.interruptible || i.why.Code != 0 {
		return false
	}
	i.why = why
	conn.SetReadDeadline(time.Unix(1, 0))
	return true
}
