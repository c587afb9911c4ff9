package protocol

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// idleState is what the server may know of a session that waits for a command:
// since when, and whether it may be interrupted with a closing reply. A session
// inside a transaction waits too, but is left alone.
type idleState struct {
	mu            sync.Mutex
	armed         bool // the deadline of this command is set
	interruptible bool
	start         time.Time
	why           Reply // the reply that an interrupt wants
}

var errInterrupted = errors.New("protocol: session interrupted by the server")

// begin notes that the session waits for a command. closing is read under the lock
// that interrupt takes, so that one of the two sees the other.
func (i *idleState) begin(interruptible bool, closing *atomic.Bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if interruptible && (i.why.Code != 0 || closing.Load()) {
		return errInterrupted
	}
	if !i.interruptible {
		i.interruptible, i.start = interruptible, time.Now()
	}
	return nil
}

// arm sets the deadline for the whole of a command: octets that trickle in do not
// move it.
func (i *idleState) arm(conn net.Conn, timeout time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.interruptible && i.why.Code != 0 {
		return errInterrupted // while the replies were written
	}
	if !i.armed {
		i.armed = true
		var deadline time.Time
		if timeout > 0 {
			deadline = time.Now().Add(timeout)
		}
		conn.SetReadDeadline(deadline)
	}
	return nil
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
