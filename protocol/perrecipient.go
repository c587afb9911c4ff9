package protocol

import (
	"context"
	"io"
	"sync"
)

// PerRecipient makes a handler of a function that delivers to one recipient,
// tx.Rcpts[i], and gives its outcome; a zero Reply accepts. The message is complete
// when it is called, and each call has a reader of its own, valid during the call. Up
// to parallel calls run side by side, and none of them in the session's goroutine;
// 1 or less is one after the other.
func PerRecipient(deliver func(ctx context.Context, tx *Transaction, i int, message *io.SectionReader) Reply, parallel int) Handler {
	return HandlerFunc(func(ctx context.Context, tx *Transaction, body *Body) error {
		message, err := newSpool(body)
		if err != nil {
			return err
		}
		defer message.close()
		one := func(i int) (r Reply) {
			defer func() {
				if v := recover(); v != nil {
					tx.panicked(v)
					r = replyInternal
				}
			}()
			return deliver(ctx, tx, i, message.content())
		}
		next := make(chan int)
		var workers sync.WaitGroup
		for range min(max(parallel, 1), len(tx.Rcpts)) {
			workers.Go(func() {
				for i := range next {
					if err := tx.Settle(i, one(i)); err == errNotALevel {
						tx.Settle(i, replyInternal) // nothing but an outcome may accept
					}
				}
			})
		}
		for i := range tx.Rcpts {
			next <- i
		}
		close(next)
		workers.Wait()
		return nil
	})
}
