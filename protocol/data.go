package protocol

import (
	"context"
	"errors"
	"runtime/debug"
	"time"
)

// data takes the message: RFC 5321 section 4.1.1.4, RFC 2033 section 4.2.
func (s *Session) data(ctx context.Context, arg []byte) Reply {
	if s.Hello == "" {
		return s.helloFirst()
	}
	if len(arg) > 0 {
		return s.syntax("DATA")
	}
	tx := s.tx
	if tx == nil {
		return s.sequence(replyNeedMail)
	}
	if len(tx.Rcpts) == 0 {
		return s.sequence(replyNeedRcpt) // RFC 2033 section 4.2: 503
	}
	if r := call(s.srv.Policy.Data, ctx, tx); !r.OK() {
		return r
	}
	s.wire.put(replyStartMail, false, false)
	return s.receive(ctx, tx)
}

// receive runs the handler on the arriving message and answers it: one reply for
// each recipient, or a single one in SMTP mode.
func (s *Session) receive(ctx context.Context, tx *Transaction) Reply {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var late *time.Timer
	body := newBody(s, tx, func() {
		if d := s.srv.timeouts.Deliver; d > 0 {
			late = time.AfterFunc(d, cancel)
		}
		tx.dataComplete()
	})
	s.wire.grow()
	err := s.deliver(ctx, tx, body)
	body.drain()
	if late != nil {
		late.Stop()
	}
	defer s.reset()
	if body.lost() {
		return s.dropped(tx, body)
	}
	r := s.outcome(ctx, err)
	if body.fault.Code != 0 {
		r = body.fault
	}
	tx.settleRest(r.or(replyOK), body.fault.Code != 0)
	if s.Mode == LMTP {
		return Reply{Code: replied.Code, Then: r.Then}
	}
	return r.or(replyOK)
}

// dropped ends a transaction whose data never came to its end: nothing of it was
// accepted, and there is nobody to tell but a client that is merely slow.
func (s *Session) dropped(tx *Transaction, body *Body) Reply {
	tx.mu.Lock()
	tx.phase = settleDone
	tx.mu.Unlock()
	if body.timedOut() {
		return replyIdle
	}
	return Reply{Code: 421, Then: CloseNow}
}

// outcome makes a reply of what the handler returned.
func (s *Session) outcome(ctx context.Context, err error) Reply {
	if err == nil {
		return Reply{}
	}
	var r Reply
	if errors.As(err, &r) {
		return r
	}
	return call1(s.srv.Policy.Failure, ctx, s, err).or(replyInternal)
}

// deliver calls the handler; a panic in it costs this message only.
func (s *Session) deliver(ctx context.Context, tx *Transaction, body *Body) (err error) {
	h := s.srv.Handler
	if h == nil {
		h = Discard
	}
	defer func() {
		if v := recover(); v != nil {
			e := &PanicError{Value: v, Stack: debug.Stack()}
			s.srv.log().Error("panic in the handler", "session", s.ID, "panic", v, "stack", string(e.Stack))
			err = e
		}
	}()
	return h.Deliver(ctx, tx, body)
}
