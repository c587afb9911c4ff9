package protocol

import (
	"context"
	"sync"
)

// Fanout gives each message to all handlers, with all recipients. It is kept until it
// is complete, in memory or a temporary file, and the handlers run side by side, each
// with a reader of its own, not in the session's goroutine.
//
// A recipient is settled when every handler has settled it: with a temporary refusal
// if there is one, else with a permanent one, else as the first handler accepted it.
// A temporary refusal brings the message again, to all handlers.
func Fanout(handlers ...Handler) Handler {
	switch len(handlers) {
	case 0:
		return Discard
	case 1:
		return handlers[0]
	}
	handlers = append([]Handler(nil), handlers...)
	return HandlerFunc(func(ctx context.Context, tx *Transaction, body *Body) error {
		message, err := newSpool(body)
		if err != nil {
			return err
		}
		defer message.close()
		all := make([]int, len(tx.Rcpts))
		for i := range all {
			all[i] = i
		}
		j := &junction{tx: tx, replies: make([][]Reply, len(handlers)), left: make([]int, len(all))}
		var branches []branch
		for n, h := range handlers {
			j.replies[n] = make([]Reply, len(all))
			branches = append(branches, branch{h, tx.part(all, func(i int, r Reply) error { return j.settle(n, i, r) })})
		}
		for i := range j.left {
			j.left[i] = len(handlers)
		}
		fork(ctx, tx, message, branches)
		return nil
	})
}

// junction is where the outcomes of several handlers become one.
type junction struct {
	tx      *Transaction
	mu      sync.Mutex
	replies [][]Reply // by handler and recipient
	left    []int     // by recipient: handlers that have not settled it
}

func (j *junction) settle(handler, i int, r Reply) error {
	j.mu.Lock()
	j.replies[handler][i] = r
	j.left[i]--
	due := j.left[i] == 0
	j.mu.Unlock()
	if !due {
		return nil
	}
	joint := j.replies[0][i]
	for _, replies := range j.replies[1:] {
		if r := replies[i]; !r.OK() && (joint.OK() || r.Temporary() && !joint.Temporary()) {
			joint = r
		}
	}
	return j.tx.Settle(i, joint)
}
