package protocol

import "context"

// Split divides each message between two handlers: the recipients that pick chooses
// go to picked, the others to rest. Each handler sees a transaction of its own
// recipients only, in their order, and what it settles is the outcome of that
// recipient. A message with recipients for both is kept until it is complete, in
// memory or a temporary file, and the handlers run side by side, not in the
// session's goroutine; one with recipients for one handler is passed on as it arrives.
//
// In SMTP mode there is still one reply for both: let the Policy refuse recipients
// where it can, since a temporary refusal of one brings the message again for all.
func Split(pick func(*Recipient) bool, picked, rest Handler) Handler {
	return HandlerFunc(func(ctx context.Context, tx *Transaction, body *Body) error {
		var yes, no []int
		for i := range tx.Rcpts {
			if pick(&tx.Rcpts[i]) {
				yes = append(yes, i)
			} else {
				no = append(no, i)
			}
		}
		switch {
		case len(no) == 0:
			return picked.Deliver(ctx, tx, body)
		case len(yes) == 0:
			return rest.Deliver(ctx, tx, body)
		}
		message, err := newSpool(body)
		if err != nil {
			return err
		}
		defer message.close()
		through := func(indexes []int) *Transaction {
			return tx.part(indexes, func(i int, r Reply) error { return tx.Settle(indexes[i], r) })
		}
		fork(ctx, tx, message, []branch{{picked, through(yes)}, {rest, through(no)}})
		return nil
	})
}
