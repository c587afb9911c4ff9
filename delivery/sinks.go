package delivery

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
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

	mu sync.Mutex // one message at a time
}

// debugLogged is how much of a message goes to the log, in octets.
const debugLogged = 16 << 10

// Deliver implements Transport.
func (d *Debug) Deliver(_ context.Context, p *Parcel, done func(int, Handover)) {
	var rcpts []string
	for _, r := range p.Rcpts {
		rcpts = append(rcpts, r.Address)
	}
	err := d.show(p, rcpts)
	for i := range p.Rcpts {
		done(i, Handover{Target: d.Target, Err: err})
	}
}

func (d *Debug) show(p *Parcel, rcpts []string) error {
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
	d.mu.Lock()
	defer d.mu.Unlock()
	to, err := d.To()
	if err != nil {
		return err
	}
	defer to.Close()
	w := bufio.NewWriter(to)
	fmt.Fprintf(w, "---------- %s from <%s> to <%s>\n", p.ID, printable(p.From), strings.Join(rcpts, "> <"))
	end := lastOctet{w: w}
	if _, err := io.Copy(&end, p.Open()); err != nil {
		return err
	}
	if end.last != '\n' {
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "---------- end of %s\n", p.ID)
	return w.Flush()
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
