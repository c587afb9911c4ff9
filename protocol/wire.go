package protocol

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"time"
)

// wire is a connection with its two buffers. Reading belongs to the session's
// goroutine; replies may be put and flushed from several.
//
// Replies collect until the input buffer holds no further command: one write
// for a batch of pipelined commands (RFC 2920 section 3.2).
type wire struct {
	conn         net.Conn // changed under mu, by the session's goroutine
	socket       net.Conn // what conn was at first, below TLS
	writeTimeout time.Duration
	trace        func(reply []byte) // nil: nobody wants to know

	buf   []byte // input is buf[r:w]
	r, w  int
	in    uint64  // octets read from conn so far
	home  []byte  // the small buffer that buf is outside of a message
	large *[]byte // the borrowed buffer that buf is during one, else nil

	mu      sync.Mutex
	written sync.Cond // signalled when writing ends
	out     []byte
	spare   []byte
	writing bool
	err     error // first error of a write; nothing is written after it
}

const (
	idleBuffer = 2 << 10  // octets that a session holds while it waits
	dataBuffer = 64 << 10 // octets borrowed while a message arrives
	mailBuffer = 8 << 10  // the same for one that says it is smaller
	minLine    = 500      // octets that a command line may always have
	maxOut     = 4 << 10  // replies collected before they are written anyhow
	maxSpare   = 1 << 10
)

var (
	dataBuffers = sync.Pool{New: func() any { b := make([]byte, dataBuffer); return &b }}
	mailBuffers = sync.Pool{New: func() any { b := make([]byte, mailBuffer); return &b }}
)

// buffersOf is the pool for buffers of n octets.
func buffersOf(n int) *sync.Pool {
	if n == mailBuffer {
		return &mailBuffers
	}
	return &dataBuffers
}

func newWire(conn net.Conn, writeTimeout time.Duration) *wire {
	w := &wire{conn: conn, socket: conn, writeTimeout: writeTimeout}
	w.written.L = &w.mu
	w.buf = make([]byte, idleBuffer)
	w.home = w.buf
	return w
}

// release gives the large buffer back when the session is over.
func (w *wire) release() {
	w.r, w.w = 0, 0
	w.shrink()
}

var (
	errLineTooLong = errors.New("protocol: command line too long")
	errFlood       = errors.New("protocol: command line without end")
)

// maxDrain is how much of a line beyond the limit is read and dropped before the
// connection is given up.
const maxDrain = 1 << 20

// secure goes on with conn, which speaks TLS on the old one. Whatever was read and
// not used came before TLS, and whoever sent it: it is dropped (RFC 3207 section 4.2).
func (w *wire) secure(conn net.Conn) {
	w.mu.Lock()
	w.conn = conn
	w.mu.Unlock()
	w.r, w.w = 0, 0
}

// line reads up to the next LF and gives what stands before it; it is valid until
// the next read. before is called each time the wire is about to wait for the
// client; an error of it is returned. limit says how many octets a line that begins
// so may have; a longer one is read to its end and answered with errLineTooLong.
func (w *wire) line(limit func(start []byte) int, before func() error) ([]byte, error) {
	from, dropped := w.r, 0
	for {
		if i := bytes.IndexByte(w.buf[from:w.w], '\n'); i >= 0 {
			line := w.buf[w.r : from+i]
			w.r = from + i + 1
			if dropped > 0 || len(line)+1 > limit(line) {
				return nil, errLineTooLong
			}
			return line, nil
		}
		if w.w-w.r == len(w.buf) {
			w.grow(dataBuffer)
		}
		if n := w.w - w.r; dropped > 0 || n == len(w.buf) || n > minLine && n >= limit(w.buf[w.r:w.w]) {
			dropped += w.w - w.r
			w.r, w.w = 0, 0
			if dropped > maxDrain {
				return nil, errFlood
			}
		}
		// An error with part of a line in the buffer loses that part: a command
		// without its line end is no command.
		if err := before(); err != nil {
			return nil, err
		}
		n := w.w - w.r
		if err := w.fill(); err != nil {
			return nil, err
		}
		from = w.r + n
	}
}

// fill flushes the replies and reads more input, at least one octet.
func (w *wire) fill() error {
	if err := w.flush(); err != nil {
		return err
	}
	if w.r == w.w {
		w.r, w.w = 0, 0
	} else if w.w == len(w.buf) {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	// The others first: by the time they have had their turn the client may have gone
	// on, which saves a read in vain and a sleep.
	runtime.Gosched()
	for range 100 {
		n, err := w.conn.Read(w.buf[w.w:])
		w.w += n
		w.in += uint64(n)
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// drained reports whether all input that has come was used.
func (w *wire) drained() bool { return w.r == w.w }

// grow exchanges the buffer for one of n octets, unless it is as large; shrink the
// reverse where what is left fits.
func (w *wire) grow(n int) {
	if len(w.buf) >= n {
		return
	}
	old := w.large
	w.large = buffersOf(n).Get().(*[]byte)
	big := *w.large
	w.w = copy(big, w.buf[w.r:w.w])
	w.r, w.buf = 0, big
	w.giveBack(old)
}

func (w *wire) shrink() {
	if w.large == nil || w.w-w.r >= len(w.home) {
		return
	}
	w.w = copy(w.home, w.buf[w.r:w.w])
	w.r, w.buf = 0, w.home
	w.giveBack(w.large)
	w.large = nil
}

func (w *wire) giveBack(b *[]byte) {
	if b != nil {
		buffersOf(len(*b)).Put(b)
	}
}

// put appends a reply to those that wait to be written. It never writes itself,
// so that it may be called with locks held; full asks for a push soon.
func (w *wire) put(r Reply, utf8, enhanced bool) (full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		n := len(w.out)
		w.out = r.appendTo(w.out, utf8, enhanced)
		if w.trace != nil {
			w.trace(w.out[n:])
		}
	}
	return len(w.out) > maxOut
}

// push writes what waits, unless another goroutine is at it: that one takes these
// replies along with its own, so that recipients settled at the same time share
// a write.
func (w *wire) push() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.writing {
		return
	}
	w.writing = true
	for len(w.out) > 0 && w.err == nil {
		b, conn := w.out, w.conn
		w.out = w.spare[:0]
		w.mu.Unlock()
		if w.writeTimeout > 0 {
			conn.SetWriteDeadline(time.Now().Add(w.writeTimeout))
		}
		_, err := conn.Write(b)
		w.mu.Lock()
		w.spare = nil
		if cap(b) <= maxSpare {
			w.spare = b
		}
		w.err = err
	}
	if w.err != nil {
		w.out = nil // nobody will read it
	}
	w.writing = false
	w.written.Broadcast()
}

// flush is push that also waits for another goroutine's write to end.
func (w *wire) flush() error {
	w.push()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.written.Wait()
	}
	return w.err
}

// lingerTime is how long a session that is over waits for the client to close.
const lingerTime = time.Second

// linger lets the client read the last reply: a close with unread input makes TCP
// reset the connection, and the reply may be lost with it.
// The error is what reading ended with, io.EOF if the client has closed.
func (w *wire) linger() error {
	c, ok := w.conn.(interface{ CloseWrite() error })
	if !ok {
		return nil
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	w.conn.SetReadDeadline(time.Now().Add(lingerTime))
	for range 64 {
		if _, err := w.conn.Read(w.home); err != nil {
			return err
		}
	}
	return nil
}
