package protocol

import (
	"context"
	"time"
)

// admit takes the session in, and makes room for it where the limit is reached.
// With the error comes what to tell the client.
func (srv *Server) admit(s *Session) (Reply, error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing.Load() {
		return replyShutdown, ErrServerClosed
	}
	if n := srv.limits.Sessions; n >= 0 && len(srv.sessions)-srv.evicting >= n {
		// Those leaving may linger; they too must not grow without bound.
		if srv.evicting > n || !srv.evictLocked() {
			return replyCrowded, ErrCrowded
		}
	}
	srv.sessions[s] = struct{}{}
	return Reply{}, nil
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

// release closes the session's connection and forgets it, in this order: after
// Shutdown no connection is open.
func (srv *Server) release(s *Session) {
	s.wire.conn.Close()
	s.wire.release()
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
	if !srv.closing.Swap(true) {
		close(srv.stop)
	}
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
