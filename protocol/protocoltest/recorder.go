package protocoltest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

// Message is one that a Recorder has taken.
type Message struct {
	From  string   // reverse-path, "" for the null one
	Rcpts []string // forward-paths in order
	Hello string
	With  string // protocol name as in a Received field
	Body  []byte // as it came, CR LF included
}

// Recorder is a handler that keeps every complete message in memory. It is safe
// for concurrent use.
type Recorder struct {
	// Reply, if set, gives the reply for recipient i; a zero Reply accepts.
	// Set it before the first message.
	Reply func(tx *protocol.Transaction, i int) protocol.Reply

	mu       sync.Mutex
	messages []Message
	next     int // the first that Next has not given
	faults   []*fault
	more     chan struct{} // closed and renewed with each message
}

// NewRecorder makes a Recorder that accepts everything.
func NewRecorder() *Recorder { return &Recorder{more: make(chan struct{})} }

// Deliver implements protocol.Handler.
func (r *Recorder) Deliver(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
	if reply := r.strike(ctx, Body); !reply.OK() {
		return reply
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	m := Message{From: tx.From.String(), Hello: tx.Session.Hello, With: tx.With(), Body: data}
	for i := range tx.Rcpts {
		m.Rcpts = append(m.Rcpts, tx.Rcpts[i].Path.String())
	}
	r.mu.Lock()
	r.messages = append(r.messages, m)
	close(r.more)
	r.more = make(chan struct{})
	r.mu.Unlock()
	if r.Reply != nil {
		for i := range tx.Rcpts {
			tx.Settle(i, r.Reply(tx, i))
		}
	}
	return nil
}

// Messages are those taken so far, oldest first.
func (r *Recorder) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Message(nil), r.messages...)
}

// Wait returns when n messages have been taken, or with an error when ctx ends.
func (r *Recorder) Wait(ctx context.Context, n int) ([]Message, error) {
	for {
		r.mu.Lock()
		got, more := len(r.messages), r.more
		r.mu.Unlock()
		if got >= n {
			return r.Messages(), nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return r.Messages(), fmt.Errorf("protocoltest: %d of %d messages: %w", got, n, ctx.Err())
		}
	}
}

// Next gives each message once, oldest first, and waits for the next one. It fails the
// test where none comes.
func (r *Recorder) Next(t testing.TB) Message {
	t.Helper()
	r.mu.Lock()
	n := r.next
	r.next++
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := r.Wait(ctx, n+1)
	if err != nil {
		t.Fatal(err)
	}
	return all[n]
}
