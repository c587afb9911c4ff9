package protocol

import (
	"context"
	"io"
	"math"
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

// markReplies is called when the last reply of tx is about to go out. It reports
// whether there are pipelined commands, which the session is about to answer: the
// reply had better go out with those answers, since a client that reads the one and
// closes (Postfix does not wait for the reply to QUIT) would seem not to have read all.
//
// Below TLS more octets wait than come out of it, so that the mark errs towards "not
// seen".
func (s *Session) markReplies(tx *Transaction) (pipelined bool) {
	if s.srv.Policy.Replied == nil {
		return false
	}
	n := s.wire.unread()
	tx.mark = s.wire.in + uint64(n)
	return n > 0 || !s.wire.drained()
}

// fetch reads what has arrived, without writing what waits and without waiting.
func (w *wire) fetch() {
	if w.conn != w.socket || w.w == len(w.buf) || w.unread() == 0 {
		return
	}
	n, _ := w.conn.Read(w.buf[w.w:]) // the next read meets the error again
	w.w += n
	w.in += uint64(n)
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

// resolveAll is called when the session is over. A client whose QUIT was pipelined
// has seen the replies if it closes its side without a reset and with all that was
// written acknowledged: had it left some of it unread, the kernel would have said so.
// One that closes without QUIT has not gone on, whatever it has read.
func (s *Session) resolveAll(ctx context.Context) {
	s.wire.mu.Lock()
	all := s.clean && s.wire.err == nil
	s.wire.mu.Unlock()
	for len(s.unseen) > 0 {
		s.resolve(ctx, all && s.unseen[0].mark != neverSeen)
	}
}

// ended notes how reading has ended after the last reply of a session that is closed
// in good order.
func (s *Session) ended(err error) { s.clean = err == io.EOF && s.wire.unsent() <= 1 }

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

// unsent is how many octets the client's side has not acknowledged. Our own FIN may
// be one of them.
func (w *wire) unsent() (n int) {
	w.control(func(fd uintptr) { n = pendingOutput(fd) })
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
