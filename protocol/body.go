package protocol

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// Body is the content of a message while it arrives: a stream without
// dot-stuffing and without the final dot, or the chunks of BDAT one after the other,
// line ends as the client sent them. It may be read by one goroutine at a time, during Handler.Deliver only.
type Body struct {
	src   io.Reader // the content, where it does not come from a session
	s     *Session
	tx    *Transaction
	scan  scanner
	chunk *chunks // nil: the data of a DATA command
	done  bool    // the end of the data was seen
	rest  []byte  // content taken from the input buffer and not yet read
	size  int64
	fault Reply  // the first thing wrong with the content; the message is refused
	err   error  // what reading ended with
	ended func() // called once when the data is complete

	limit    int64
	lineMax  int
	line     int  // octets in the current line
	strict   bool // lone CR and LF are faults
	cr       bool // strict: the last octet was a CR
	deadline time.Time
	start    time.Time
	unix     bool // the client is on this machine
	norm     *normalizer
}

// ErrFault is behind the error of Body.Read when the content breaks a rule of
// the server, which will refuse it; the error itself is the Reply.
var ErrFault = errors.New("protocol: message refused while it arrived")

// faultError carries the reply and unwraps to ErrFault.
type faultError struct{ Reply }

func (e faultError) Unwrap() []error { return []error{ErrFault, e.Reply} }

func newBody(s *Session, tx *Transaction, c *chunks, ended func()) *Body {
	b := &Body{
		s: s, tx: tx, chunk: c, ended: ended,
		start: time.Now(), unix: s.PeerCred != nil,
		limit: s.MessageSize, lineMax: s.srv.limits.ContentLine,
		strict: s.srv.newlines == NewlinesReject,
	}
	if s.srv.newlines == NewlinesNormalize && tx.Mail.Body != BodyBinaryMIME {
		b.norm = new(normalizer)
	}
	if tx.Mail.Body == BodyBinaryMIME { // it has no lines (RFC 3030 section 3)
		b.lineMax, b.strict = 0, false
	}
	if d := s.srv.timeouts.Transaction; d > 0 {
		b.deadline = time.Now().Add(d)
	}
	return b
}

// Size is the number of octets of content that have arrived so far.
func (b *Body) Size() int64 { return b.size }

// Read reads content. io.EOF means that the message is complete and within all
// limits.
func (b *Body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.src != nil {
		n, err := b.src.Read(p)
		b.size += int64(n)
		return n, err
	}
	for len(b.rest) == 0 && b.err == nil {
		b.rest = b.step()
	}
	if len(b.rest) == 0 {
		return 0, b.err
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// WriteTo writes the content to dst in large pieces, straight from the input
// buffer, until the message is complete (nil), refused, or lost, or dst fails.
func (b *Body) WriteTo(dst io.Writer) (written int64, err error) {
	if b.src != nil {
		return io.Copy(dst, struct{ io.Reader }{b})
	}
	for {
		if len(b.rest) > 0 {
			n, err := dst.Write(b.rest)
			written += int64(n)
			b.rest = b.rest[n:]
			if err != nil {
				return written, err
			}
		}
		if b.err != nil {
			break
		}
		b.rest = b.step()
	}
	if b.err == io.EOF {
		return written, nil
	}
	return written, b.err
}

// step takes the next span of content out of the input buffer, or brings in more
// input where that needs some. The span is valid until the next step.
func (b *Body) step() []byte {
	w := b.s.wire
	var span []byte
	var used int
	if b.chunk == nil {
		span, used, b.done = b.scan.next(w.buf[w.r:w.w])
	} else {
		span, used, b.done = b.chunk.next(w.buf[w.r:w.w])
	}
	w.r += used
	if b.norm != nil {
		span = b.norm.convert(span, b.done)
	}
	b.size += int64(len(span))
	if b.fault.Code == 0 && len(span) > 0 {
		b.check(span)
	}
	if b.done && b.cr {
		b.refuse(replyBareInData)
	}
	switch {
	case b.done && b.fault.Code == 0:
		b.err = io.EOF
		if len(span) == 0 {
			w.shrink() // the handler may wait for a disk now
		}
		b.ended()
	case used == 0 && !b.done:
		b.more()
	case b.fault.Code != 0:
		b.err = faultError{b.fault}
		return nil
	}
	return span
}

// check looks for the first fault of the content, wherever it is cut into spans.
func (b *Body) check(span []byte) {
	fault, at := Reply{}, len(span)
	if b.limit > 0 && b.size > b.limit {
		fault, at = replyTooMuch, len(span)-int(b.size-b.limit)
	}
	if b.lineMax > 0 {
		if i := b.longLine(span[:at]); i >= 0 {
			fault, at = replyLongLine, i
		}
	}
	if b.strict {
		if i := b.loneNewline(span[:at]); i >= 0 {
			fault = replyBareInData
		}
	}
	if fault.Code != 0 {
		b.refuse(fault)
	}
}

// longLine is where span goes beyond the limit of a line; -1 if it does not.
func (b *Body) longLine(span []byte) int {
	for at := 0; at < len(span); {
		i, end := bytes.IndexByte(span[at:], '\n'), len(span)
		if i >= 0 {
			end = at + i + 1
		}
		if b.line+end-at > b.lineMax {
			return at + b.lineMax - b.line
		}
		b.line += end - at
		if i >= 0 {
			b.line = 0
		}
		at = end
	}
	return -1
}

// loneNewline is where it shows that a CR or LF in span stands alone, or that the CR
// before it does; -1 if none does.
func (b *Body) loneNewline(span []byte) int {
	n := len(span)
	if n == 0 {
		return -1
	}
	before := b.cr
	b.cr = span[n-1] == '\r'
	pairs, crs, lfs := bytes.Count(span, crlf), bytes.Count(span, crlf[:1]), bytes.Count(span, crlf[1:])
	if b.cr {
		crs-- // its LF may come with the next span
	}
	if before && span[0] == '\n' {
		lfs--
	} else if before {
		return 0
	}
	if crs == pairs && lfs == pairs {
		return -1
	}
	for i, c := range span {
		if (c == '\n') != before {
			return i
		}
		before = c == '\r'
	}
	return -1
}

var crlf = []byte("\r\n")

func (b *Body) refuse(r Reply) {
	if b.fault.Code == 0 {
		b.fault = r
	}
}

// more waits for input within the limits of time.
func (b *Body) more() {
	if b.chunk != nil && b.chunk.left == 0 {
		b.nextChunk()
		return
	}
	w := b.s.wire
	until := b.deadline
	if slow := b.tooSlow(); !slow.IsZero() && (until.IsZero() || slow.Before(until)) {
		until = slow
	}
	b.s.conn.SetReadDeadline(b.s.dataDeadline(until))
	if err := w.fill(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		b.err = err
	}
}

// tooSlow is when the message falls below the rate that it must have, if it has one.
func (b *Body) tooSlow() time.Time {
	rate := b.s.srv.limits.MinRate
	if rate <= 0 || b.unix {
		return time.Time{}
	}
	return b.start.Add(b.s.srv.timeouts.Data + time.Duration(float64(b.size)/float64(rate)*float64(time.Second)))
}

// drain reads on to the end of the data, whatever the handler left unread and
// whatever is wrong with it, so that no octet of it is taken for a command.
func (b *Body) drain() {
	b.rest = nil
	for !b.done {
		if b.err != nil && !errors.Is(b.err, ErrFault) {
			return
		}
		b.err = nil
		b.step()
	}
}

// dataDeadline is when the next arrival of data is due; until bounds all of it, if it
// is not zero.
func (s *Session) dataDeadline(until time.Time) time.Time {
	d := s.srv.timeouts.Data
	if d <= 0 {
		return until
	}
	if next := time.Now().Add(d); until.IsZero() || next.Before(until) {
		return next
	}
	return until
}
