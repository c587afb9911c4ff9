package protocol

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// chunks is a message that comes by BDAT (RFC 3030 section 2). The handler runs from
// the first chunk on; when it reads past the end of a chunk, the commands up to the
// next one are carried out within that read.
type chunks struct {
	left int64 // octets of this chunk to come
	last bool  // no other chunk follows
	ctx  context.Context
	// then is what the session does once the handler has returned, if the message
	// ended otherwise than by its last chunk.
	then func(context.Context) Reply
}

// ErrReset is what Body.Read returns when the client gave the message up between two
// chunks of BDAT.
var ErrReset = errors.New("protocol: message given up by the client")

// errClosing is what Body.Read returns when the session ends between two chunks.
var errClosing = errors.New("protocol: session closed within a message")

// next looks at src as scanner.next does.
func (c *chunks) next(src []byte) (span []byte, used int, done bool) {
	n := int(min(int64(len(src)), c.left))
	c.left -= int64(n)
	return src[:n], n, c.left == 0 && c.last
}

// bdat begins a message or goes on with it: RFC 3030 section 2, RFC 2033 section 4.3.
func (s *Session) bdat(ctx context.Context, arg []byte) Reply {
	n, last, ok := parseBdat(string(arg))
	if !ok {
		return s.syntax("BDAT <size> [LAST]")
	}
	if c := s.chunks; c != nil {
		c.left, c.last = n, last
		return replied
	}
	tx := s.tx
	var r Reply
	switch {
	case s.Hello == "":
		r = s.helloFirst()
	case tx == nil:
		r = s.sequence(replyNeedMail)
	case len(tx.Rcpts) == 0:
		// RFC 2033 section 4.3 would have no reply at all to a last chunk without
		// recipients; every server answers 503, and clients count on one.
		r = s.sequence(replyNeedRcpt)
	default:
		r = call(s.srv.Policy.Data, ctx, tx)
	}
	if !r.OK() || r.Then == CloseNow {
		// The octets follow whatever the answer is.
		if err := s.swallow(n); err != nil {
			return s.cut(err)
		}
		return r
	}
	after := s.receive(ctx, tx, &chunks{left: n, last: last})
	after.Then = max(after.Then, r.Then)
	return after
}

func parseBdat(arg string) (n int64, last, ok bool) {
	size, rest, _ := strings.Cut(strings.ReplaceAll(arg, "\t", " "), " ")
	rest = strings.TrimLeft(rest, " ")
	last = strings.EqualFold(rest, "LAST")
	if rest != "" && !last || size == "" || size[0] == '+' || size[0] == '-' {
		return 0, false, false
	}
	// Out of range it is the largest number, and the session never gets past it.
	n, err := strconv.ParseInt(size, 10, 64)
	return n, last, err == nil || errors.Is(err, strconv.ErrRange)
}

// swallow reads n octets and drops them.
func (s *Session) swallow(n int64) error {
	w := s.wire
	until := time.Time{}
	if d := s.srv.timeouts.Transaction; d > 0 {
		until = time.Now().Add(d)
	}
	for {
		took := min(int64(w.w-w.r), n)
		w.r += int(took)
		if n -= took; n == 0 {
			return nil
		}
		s.conn.SetReadDeadline(s.dataDeadline(until))
		if err := w.fill(); err != nil {
			return err
		}
	}
}

// nextChunk answers the chunk that has come and carries out commands until there is
// another one, or the end of the message or of the session.
func (b *Body) nextChunk() {
	c, s := b.chunk, b.s
	defer func() {
		// This may be a goroutine of the handler's, where a panic of a hook
		// would end the process.
		if v := recover(); v != nil {
			e := &PanicError{Value: v, Stack: debug.Stack()}
			b.err = e
			c.then = func(context.Context) Reply { panic(e) }
		}
	}()
	b.putChunkReply()
	for c.left == 0 && !c.last && c.then == nil {
		r, err := s.next(c.ctx)
		switch {
		case err == io.EOF:
			b.err = io.ErrUnexpectedEOF
			return
		case err != nil:
			b.err = err
			return
		case r.Then != Continue:
			b.err = errClosing
			c.then = func(context.Context) Reply { return Reply{Code: replied.Code, Then: r.Then} }
		case c.then != nil:
			b.err = ErrReset
		case r.Code == replied.Code && c.left == 0 && !c.last:
			b.putChunkReply() // to an empty chunk
		}
	}
}

// putChunkReply answers a chunk that is not the last one.
func (b *Body) putChunkReply() {
	r := replyChunk
	if b.fault.Code != 0 {
		r = b.fault
	}
	b.s.put(r)
}

// betweenChunks answers what must not come between two chunks, and puts off what ends
// the message until the handler has returned.
func (s *Session) betweenChunks(verb uint32, line []byte) (Reply, bool) {
	switch verb {
	case vMAIL, vRCPT, vDATA:
		return s.fault(replyInChunks), true
	case vRSET, vQUIT, vHELO, vEHLO, vLHLO:
		line = append(bytes.Clone(line), '\r')
		s.chunks.then = func(ctx context.Context) Reply {
			s.reset()
			return s.command(ctx, line)
		}
		return replied, true
	}
	return Reply{}, false
}
