package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
)

// hostState is what is known of one host. It goes when nobody uses it and it says
// nothing.
type hostState struct {
	host  Host
	slots chan struct{} // one for each connection that sends

	// Guarded by Relay.mu.
	users     int
	idle      []*link // the last one was used last
	downUntil time.Time
	failed    time.Time // the last time; zero: it works
	failure   error
	watched   bool // a timer will prune it
}

// doubt is where a message may be already.
type doubt struct {
	host  Host
	until time.Time
}

// use gives the state of a host, and keeps it there until unuse.
func (r *Relay) use(h Host) *hostState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.hosts[h]
	if s == nil {
		if r.hosts == nil {
			r.hosts = map[Host]*hostState{}
		}
		s = &hostState{host: h, slots: make(chan struct{}, orDefault(r.Connections, 20))}
		r.hosts[h] = s
	}
	s.users++
	return s
}

func (r *Relay) unuse(s *hostState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.users--
	r.prune(s)
}

// prune forgets a host of which there is nothing to know. The caller holds mu.
func (r *Relay) prune(s *hostState) {
	if s.users == 0 && len(s.idle) == 0 && !time.Now().Before(s.downUntil) && r.hosts[s.host] == s {
		delete(r.hosts, s.host)
	}
}

// enter waits for one of the connections that a host may have.
func (s *hostState) enter(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %d connections are in use: %w", delivery.ErrBusy, cap(s.slots), context.Cause(ctx))
	}
}

func (s *hostState) leave() { <-s.slots }

// idle takes a connection that waits for work; nil: there is none.
func (r *Relay) idle(s *hostState) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := len(s.idle); n > 0; n = len(s.idle) {
		l := s.idle[n-1]
		s.idle = s.idle[:n-1]
		if l.timer.Stop() {
			return l
		} // else its time is up, and the timer ends it
	}
	return nil
}

// keep puts a connection aside for the next message, or ends it.
func (r *Relay) keep(s *hostState, l *link) {
	if l.dead {
		l.close()
		return
	}
	l.conn.SetDeadline(time.Time{})
	l.reused = true
	r.mu.Lock()
	defer r.mu.Unlock()
	l.timer = time.AfterFunc(orDefault(r.Idle, 30*time.Second), func() {
		r.mu.Lock()
		for i := range s.idle {
			if s.idle[i] == l {
				s.idle = append(s.idle[:i], s.idle[i+1:]...)
				break
			}
		}
		r.prune(s)
		r.mu.Unlock()
		l.quit()
	})
	s.idle = append(s.idle, l)
}

// CloseIdle ends the connections that wait for work.
func (r *Relay) CloseIdle() {
	r.mu.Lock()
	var all []*link
	for _, s := range r.hosts {
		for _, l := range s.idle {
			if l.timer.Stop() {
				all = append(all, l)
			}
		}
		s.idle = nil
		r.prune(s)
	}
	r.mu.Unlock()
	for _, l := range all {
		l.quit()
	}
}

// watch forgets a host that is not used any more once it is no longer down.
func (r *Relay) watch(s *hostState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := time.Until(s.downUntil); left > 0 {
		time.AfterFunc(left, func() { r.watch(s) })
		return
	}
	s.watched = false
	r.prune(s)
}

// since gives the failure of a host after a time; who has waited for it meanwhile need
// not try it too.
func (r *Relay) since(s *hostState, start time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.failed.After(start) {
		return s.failure
	}
	return nil
}

// judgeLink is judge for a connection on which a message was sent. A host that has not
// answered to the end of the data has failed like any other: the message is in doubt, and
// goes there again, but others need not wait there too.
func (r *Relay) judgeLink(ctx context.Context, s *hostState, l *link, sum uint64, err error) error {
	if err != nil || l.broken == nil {
		return r.judge(s, err)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	r.judge(s, l.broken)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.doubts) >= maxDoubts {
		maps.DeleteFunc(r.doubts, func(_ uint64, d doubt) bool { return !now.Before(d.until) })
	}
	if sum != 0 && len(r.doubts) < maxDoubts {
		if r.doubts == nil {
			r.doubts = map[uint64]doubt{}
		}
		r.doubts[sum] = doubt{s.host, now.Add(orDefault(r.Doubt, time.Hour))}
	}
	return nil
}

// maxDoubts bounds Relay.doubts.
const maxDoubts = 1000

// judge notes whether a host works, and gives the error back.
func (r *Relay) judge(s *hostState, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, delivery.ErrBusy) {
		return err // says nothing about the host
	}
	r.mu.Lock()
	worked := s.failed.IsZero()
	if err == nil || lacks(err) {
		s.failure, s.failed, s.downUntil = nil, time.Time{}, time.Time{}
	} else {
		s.failure, s.failed = err, time.Now()
		s.downUntil = s.failed.Add(orDefault(r.Down, time.Minute))
		if !s.watched {
			s.watched = true
			time.AfterFunc(time.Until(s.downUntil), func() { r.watch(s) })
		}
	}
	r.mu.Unlock()
	switch {
	case lacks(err): // it is as well as before
	case err != nil && worked:
		r.log().Warn("next server cannot be used, it is tried last for a while", "host", s.host.String(), "error", err.Error())
	case err == nil && !worked:
		r.log().Info("next server is back", "host", s.host.String())
	}
	return err
}
