package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Discard is a Transport that takes each message and throws it away.
type Discard struct{}

// Deliver implements Transport.
func (Discard) Deliver(_ context.Context, p *Parcel, done func(int, Handover)) {
	for i := range p.Rcpts {
		done(i, Handover{Target: "discard"})
	}
}

// Debug is a Transport that shows each message and takes it, though it may be nowhere
// but in what shows it. It is for trying things out. Its methods are safe for concurrent
// use, and it must not be copied.
type Debug struct {
	// To opens what messages are written to; it is closed after each. nil: Log.
	To func() (io.WriteCloser, error)
	// Target names that place in the log.
	Target string
	// Log gets a record for each message with its first octets; nil: slog.Default.
	Log *slog.Logger
	// Timeout is for one message, with the wait for its turn; 0: what the transaction has.
	// One whose place does not take it in time is deferred.
	Timeout time.Duration

	once sync.Once
	turn chan struct{} // one message at a time
}

// debugLogged is how much of a message goes to the log, in octets.
const debugLogged = 16 << 10

// Deliver implements Transport.
func (d *Debug) Deliver(ctx context.Context, p *Parcel, done func(int, Handover)) {
	var rcpts []string
	for _, r := range p.Rcpts {
		rcpts = append(rcpts, r.Address)
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.Timeout, errNotTaken)
		defer cancel()
	}
	err := d.show(ctx, p, rcpts)
	for i := range p.Rcpts {
		done(i, Handover{Target: d.Target, Err: err})
	}
}

func (d *Debug) show(ctx context.Context, p *Parcel, rcpts []string) error {
	if d.To == nil {
		text, err := io.ReadAll(io.LimitReader(p.Open(), debugLogged))
		if err != nil {
			return err
		}
		log := d.Log
		if log == nil {
			log = slog.Default()
		}
		log.Info("message", "id", p.ID, "from", p.From, "to", strings.Join(rcpts, " "), "size", p.Size, "text", string(text))
		return nil
	}
	d.once.Do(func() { d.turn = make(chan struct{}, 1) })
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %s: %w", ErrSlow, d.Target, context.Cause(ctx))
	}
	text := &revocable{r: p.Open()}
	over := make(chan error, 1)
	go func() { // that of a pipe which nobody reads ends when somebody does
		defer func() { <-d.turn }()
		over <- d.write(p, rcpts, text)
	}()
	select {
	case err := <-over:
		return err
	case <-ctx.Done():
		text.revoke()
		return fmt.Errorf("%w: %s: %w", ErrSlow, d.Target, context.Cause(ctx))
	}
}

var errNotTaken = errors.New("nobody reads what is shown there")

func (d *Debug) write(p *Parcel, rcpts []string, text io.Reader) error {
	to, err := d.To()
	if err != nil {
		return err
	}
	defer to.Close()
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "---------- %s from <%s> to <%s>\n", p.ID, printable(p.From), strings.Join(rcpts, "> <"))
	end := lastOctet{w: w}
	_, err = io.Copy(&end, text)
	if end.last != '\n' {
		fmt.Fprintln(w)
	}
	if err != nil {
		fmt.Fprintf(w, "---------- %s is cut off: %v\n", p.ID, err)
		return errors.Join(err, w.Flush())
	}
	fmt.Fprintf(w, "---------- end of %s\n", p.ID)
	return w.Flush()
}

// revocable is a message that nobody may read any more at some time.
type revocable struct {
	mu sync.Mutex // held while r is read
	r  io.Reader
}

func (v *revocable) Read(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.r == nil {
		return 0, errNotTaken
	}
	return v.r.Read(p)
}

func (v *revocable) revoke() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.r = nil
}

// lastOctet remembers how a text ended.
type lastOctet struct {
	w    io.Writer
	last byte
}

func (l *lastOctet) Write(p []byte) (int, error) {
	if len(p) > 0 {
		l.last = p[len(p)-1]
	}
	return l.w.Write(p)
}
