package protocol

import (
	"context"
	"time"
)

// arrive notes a connection that will be admitted: Shutdown waits for it, so that one
// accepted in its very moment is served like any other newcomer.
func (srv *Server) arrive() {
	srv.mu.Lock()
	srv.arriving++
	srv.mu.Unlock()
}

// admit takes the session in, and makes room for it where the limit is reached.
// With the error comes what to tell the client.
func (srv *Server) admit(s *Session) (Reply, error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.arriving--
	if srv.closing.Load() && (srv.forced || !time.Now().Before(srv.closeBy)) || srv.isDrained() {
		srv.checkDrained()
		return replyShutdown, ErrServerClosed
	}
	if n := srv.limits.Sessions; n >= 0 && len(srv.sessions)-srv.evicting >= n {
		// Those leaving may linger; they too must not grow without bound.
		if srv.evicting > n || !srv.evictLocked() {
			srv.counters.crowded.Add(1)
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
		if oldest.idle.interrupt(oldest.conn, replyCrowded) {
			oldest.evicted = true
			srv.evicting++
			srv.counters.crowded.Add(1)
			return true
		}
	}
	return false
}

// release closes the session's connection and forgets it, in this order: after
// Shutdown no connection is open.
func (srv *Server) release(s *Session) {
	s.conn.Close()
	s.wire.release()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if s.evicted {
		srv.evicting--
	}
	delete(srv.sessions, s)
	srv.checkDrained()
}

// checkDrained notes that nothing is left: no session, none to come, no listener that
// may still accept one. The caller holds mu.
func (srv *Server) checkDrained() {
	if srv.closing.Load() && len(srv.sessions)+srv.arriving+len(srv.listeners) == 0 && !srv.isDrained() {
		close(srv.drained)
	}
}

func (srv *Server) isDrained() bool {
	select {
	case <-srv.drained:
		return true
	default:
		return false
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
// transaction is over and its replies are sent. A session that has not had one may
// begin it during Timeouts.Newcomer. After Timeouts.Drain the contexts of hooks and
// handlers end. When ctx ends first, the remaining connections are closed by force and
// the context's error is returned.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.beginClosing()
	if d := srv.timeouts.Drain; d > 0 {
		defer time.AfterFunc(d, srv.hurry).Stop()
	}
	srv.mu.Lock()
	for s := range srv.sessions {
		s.idle.close(s.conn, srv)
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

// hurry ends the contexts of all sessions.
func (srv *Server) hurry() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for s := range srv.sessions {
		s.cancel()
	}
}

// Close closes the listeners and all connections at once, cancels the context of
// every handler that runs, and waits for none of them.
func (srv *Server) Close() error {
	srv.beginClosing()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.forced = true
	for s := range srv.sessions {
		s.cancel()
		s.conn.Close()
	}
	srv.checkDrained()
	return nil
}

func (srv *Server) beginClosing() {
	srv.init()
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if !srv.closing.Load() {
		srv.closeBy = time.Now().Add(srv.timeouts.Newcomer)
		srv.closing.Store(true)
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
	srv.checkDrained()
}
