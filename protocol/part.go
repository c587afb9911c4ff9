package protocol

import (
	"context"
	"errors"
	"runtime/debug"
)

// part makes a transaction of some recipients of tx, those with the indexes given.
// What is settled in it goes to pass, by its own indexes.
func (tx *Transaction) part(indexes []int, pass func(i int, r Reply) error) *Transaction {
	p := &Transaction{
		Session: tx.Session, ID: tx.ID, From: tx.From, Mail: tx.Mail, RawParams: tx.RawParams, Forward: tx.Forward, Value: tx.Value, pass: pass,
	}
	for _, i := range indexes {
		p.Rcpts = append(p.Rcpts, tx.Rcpts[i])
	}
	return p
}

// branch is a handler with its part of a transaction.
type branch struct {
	handler Handler
	tx      *Transaction
}

// fork gives the message to each branch, side by side, and returns when all are done.
// Recipients that a branch left are settled as its return value says, without waiting
// for the others. The session's fields do not change meanwhile.
func fork(ctx context.Context, tx *Transaction, message *spool, branches []branch) {
	type end struct {
		branch
		err error
	}
	ends := make(chan end)
	for _, b := range branches {
		go func() { ends <- end{b, b.run(ctx, message)} }()
	}
	for range branches {
		e := <-ends
		e.tx.finish(e.tx.outcome(ctx, e.err))
		if tx.ID == "" {
			tx.ID = e.tx.ID
		}
	}
}

// run calls the handler. A panic would end the process: this is no goroutine of the
// session's.
func (b *branch) run(ctx context.Context, message *spool) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = b.tx.panicked(v)
		}
	}()
	return b.handler.Deliver(ctx, b.tx, NewBody(message.content()))
}

// panicked notes a panic in a handler, from its deferred function.
func (tx *Transaction) panicked(v any) *PanicError {
	e := &PanicError{Value: v, Stack: debug.Stack()}
	if s := tx.Session; s != nil && s.srv != nil {
		s.srv.log().Error("panic in the handler", "session", s.ID, "panic", v, "stack", string(e.Stack))
	}
	return e
}

// outcome is what a handler's return value stands for, in a session or outside.
func (tx *Transaction) outcome(ctx context.Context, err error) Reply {
	if s := tx.Session; s != nil && s.srv != nil {
		return tx.reply(s.outcome(ctx, err))
	}
	var r Reply
	switch {
	case err == nil:
		return tx.reply(Reply{})
	case errors.As(err, &r) && r.final():
		return r
	}
	return replyInternal
}

// finish settles the rest of a part; what comes later is too late.
func (tx *Transaction) finish(r Reply) {
	for i := range tx.Rcpts {
		tx.Settle(i, r) // those that are settled stay as they are
	}
	tx.abandon()
}
