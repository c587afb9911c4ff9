package protocol

import (
	"context"
	"io"
	"math"
	"net"
	"slices"
	"syscall"
)

// Whether a client has seen its replies decides whether a second transaction of
// the same content is a redelivery or another message. Nothing in the protocol says
// it outright (RFC 1047 is about just this), so it is concluded: what a client sends
// after the last reply was written, it sends because it has read that reply. What it
// had sent before (RFC 2920 allows a pipelined QUIT or MAIL behind the data) says
// nothing; so the octets that are already there are counted at that moment.

// neverSeen is the mark of a transaction whose replies are not out.
const neverSeen = math.MaxUint64

// await keeps a transaction in mind until it is known whether its replies were seen.
func (s *Session) await(tx *Transaction) {
	if s.srv.Policy.Replied != nil {
		tx.mark = neverSeen
		s.unseen = append(s.unseen, tx)
	}
}

// markReplies is called when the last reply of tx is about to go out.
func (s *Session) markReplies(tx *Transaction) {
	if s.srv.Policy.Replied != nil && s.TLS == nil {
		tx.mark = s.wire.in + uint64(s.wire.unread())
	}
}

// seen is called when a command has been read: it may show that the client has
// read what came before it.
func (s *Session) seen(ctx context.Context) {
	if s.TLS != nil && s.chunks == nil {
		// What waits below TLS cannot be told apart: nothing is concluded.
		for len(s.unseen) > 0 {
			s.resolve(ctx, false)
		}
	}
	for len(s.unseen) > 0 && s.unseen[0].mark < s.wire.in {
		s.resolve(ctx, true)
	}
}

// resolve tells the policy about the oldest transaction that it waits to hear of.
func (s *Session) resolve(ctx context.Context, seen bool) {
	tx := s.unseen[0]
	s.unseen = s.unseen[1:]
	s.srv.Policy.Replied(ctx, tx, seen)
}

// unreplied is resolve for a transaction that came to no reply.
func (s *Session) unreplied(ctx context.Context, tx *Transaction) {
	if i := slices.Index(s.unseen, tx); i >= 0 {
		s.unseen = slices.Delete(s.unseen, i, i+1)
		s.srv.Policy.Replied(ctx, tx, false)
	}
}

// resolveAll is called when the session is over. A peer on a Unix socket that has
// closed it without an error has read all that was written: the kernel would have
// reported a reset, or failed the write. TCP promises no such thing.
func (s *Session) resolveAll(ctx context.Context) {
	s.wire.mu.Lock()
	all := s.clean && s.wire.err == nil
	s.wire.mu.Unlock()
	_, unix := s.conn.(*net.UnixConn)
	for len(s.unseen) > 0 {
		s.resolve(ctx, all && unix && s.unseen[0].mark != neverSeen)
	}
}

// ended notes how reading from a client that says no more has ended.
func (s *Session) ended(err error) { s.clean = err == io.EOF }

// Gone reports whether the client has closed the connection, or its side of it, as
// far as the kernel knows; it does not wait. It may be called from any goroutine,
// and during and after the session.
func (s *Session) Gone() bool { return s.wire.hungUp() }

// unread is how many octets wait in the kernel, 0 where that cannot be found out.
// Like all reading it belongs to the session's goroutine, or to one that the
// session waits for.
func (w *wire) unread() (n int) {
	w.control(func(fd uintptr) { n = pendingInput(fd) })
	return n
}

func (w *wire) hungUp() (yes bool) {
	return !w.control(func(fd uintptr) { yes = peerClosed(fd) }) || yes
}

// control calls f with the connection's descriptor; false if it is closed.
func (w *wire) control(f func(fd uintptr)) bool {
	c, ok := w.socket.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := c.SyscallConn()
	return err == nil && raw.Control(f) == nil
}
