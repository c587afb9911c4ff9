package protocol

import (
	"context"
	"fmt"
	"io"
)

// Handler takes the messages of a server.
type Handler interface {
	// Deliver is called once the first octet of the body may be read, in the
	// session's goroutine. It settles recipients with tx.Settle, or leaves that
	// to its return value, which holds for all it did not settle: nil is 250, a
	// Reply is that reply, any other error is 451 4.3.0. In SMTP mode the return
	// value is the one reply, and nil stands for the worst that a recipient was
	// settled with: a temporary refusal, else a permanent one, else 250.
	//
	// A message is complete only when body has given io.EOF: commit nothing
	// before. Any other error of body means that the server will refuse the
	// message, or that the client is gone, whatever Deliver returns. A body that
	// is not read to its end is drained by the server.
	//
	// tx and body are valid until Deliver returns. ctx is cancelled when the
	// server is closed by force and when Timeouts.Deliver has passed since the
	// end of the data, but not when the client goes away: past the end of the
	// data that would make duplicates, not savings.
	Deliver(ctx context.Context, tx *Transaction, body *Body) error
}

// HandlerFunc makes a Handler of a function.
type HandlerFunc func(context.Context, *Transaction, *Body) error

// Deliver calls f.
func (f HandlerFunc) Deliver(ctx context.Context, tx *Transaction, body *Body) error {
	return f(ctx, tx, body)
}

// Discard accepts every message and drops it.
var Discard Handler = discard{}

type discard struct{}

func (discard) Deliver(_ context.Context, _ *Transaction, body *Body) error {
	_, err := body.WriteTo(io.Discard)
	return err
}

// PanicError is a panic in a hook or handler, as Policy.Failure gets it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }
