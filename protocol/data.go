package protocol

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
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
	r := call(s.srv.Policy.Data, ctx, tx)
	if !r.OK() || r.Then == CloseNow {
		return r
	}
	if tx.Mail.Body == BodyBinaryMIME {
		return s.sequence(replyNeedBdat) // RFC 3030 section 3
	}
	s.put(replyStartMail)
	if s.wire.drained() {
		s.wire.push() // the client waits for it, whatever the handler does first
	}
	after := s.receive(ctx, tx, nil)
	after.Then = max(after.Then, r.Then)
	return after
}

// receive runs the handler on the arriving message and answers it: one reply for
// each recipient, or a single one in SMTP mode.
func (s *Session) receive(ctx context.Context, tx *Transaction, c *chunks) Reply {
	outer, inner := ctx, &deliverContext{session: ctx}
	ctx = inner
	defer inner.end()
	s.await(tx)
	body := newBody(s, tx, c, func() {
		inner.complete(s.srv.timeouts.Deliver)
		tx.dataComplete()
	})
	if size := tx.Mail.Size; size > 0 && size < mailBuffer {
		s.wire.grow(mailBuffer)
	} else {
		s.wire.grow(dataBuffer)
	}
	if c != nil {
		c.ctx = outer
		s.chunks = c
	}
	defer s.reset()
	defer tx.abandon() // whatever happens, a late Settle must find it over
	err := s.deliver(ctx, tx, body)
	body.drain()
	s.chunks = nil
	if !body.done {
		s.over(tx, body, Reply{})
		s.unreplied(outer, tx)
		return s.dropped(outer, body)
	}
	r := body.fault
	if r.Code == 0 {
		r = s.outcome(ctx, err)
	}
	if s.Mode == SMTP {
		// Put here, while the transaction says whether the client takes UTF-8.
		if r.Code == 0 {
			r = tx.worst().or(r)
		}
		s.markReplies(tx)
		s.put(tx.reply(r))
	}
	tx.settleRest(tx.reply(r), body.fault.Code != 0)
	s.last = tx.reply(r)
	s.over(tx, body, s.last)
	if s.srv.Policy.Replied != nil {
		s.wire.fetch()
	}
	return Reply{Code: replied.Code, Then: r.Then}
}

// dropped ends a transaction whose data never came to its end: nothing of it was
// accepted, and there is nobody to tell but a client that is merely slow, or one
// that gave the message up itself.
func (s *Session) dropped(ctx context.Context, body *Body) Reply {
	if c := body.chunk; c != nil && c.then != nil {
		return c.then(ctx)
	}
	return s.cut(body.err)
}

// cut ends a session that broke off within data.
func (s *Session) cut(err error) Reply {
	s.err = err
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return replyIdle
	}
	return Reply{Code: 421, Then: CloseNow}
}

// outcome makes a reply of what the handler returned: nothing but a 2yz, 4yz or
// 5yz, since any other would put the dialog out of step.
func (s *Session) outcome(ctx context.Context, err error) Reply {
	if err == nil {
		return Reply{}
	}
	var r Reply
	if !errors.As(err, &r) {
		r = call1(s.srv.Policy.Failure, ctx, s, err).or(replyInternal)
	}
	if r.Code != 0 && !r.final() {
		s.srv.log().Error("handler's reply is none for a message", "session", s.ID, "reply", r.Error())
		return replyInternal
	}
	return r
}

// deliver calls the handler; a panic in it costs this message only.
func (s *Session) deliver(ctx context.Context, tx *Transaction, body *Body) (err error) {
	h := s.srv.Handler
	if h == nil {
		h = Discard
	}
	defer func() {
		if v := recover(); v != nil {
			s.srv.counters.panics.Add(1)
			e := &PanicError{Value: v, Stack: debug.Stack()}
			s.srv.log().Error("panic in the handler", "session", s.ID, "panic", v, "stack", string(e.Stack))
			err = e
		}
	}()
	return h.Deliver(ctx, tx, body)
}
