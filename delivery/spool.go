package delivery

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Spool says where a body waits between its arrival and its last copy. It is read
// from the connection once, converted on the way, and never held in memory beyond
// Memory.
type Spool struct {
	Dir    string // for files, which are unlinked as soon as they exist; never /tmp
	Memory int64  // octets up to which a body stays in memory; 0: 256 KiB; negative: none
	CRLF   bool   // store lines with CR LF as they came, instead of with LF
}

const defaultSpoolMemory = 256 << 10

// spooled is a body ready to be written. Close gives its memory or file back.
type spooled struct {
	maildir.Body
	header messageHeader
	bufs   *spoolBuffers
}

// spoolBuffers are what one message needs while it passes, kept for the next one.
type spoolBuffers struct {
	out  []byte // the body, or what of it waits to be written to the file
	conv []byte // one piece of it with its line ends converted
}

var spoolPool = sync.Pool{New: func() any { return new(spoolBuffers) }}

// spoolError is a failure to keep the body, as against one to receive it.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return "spool: " + e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// take reads a body to its end. size is what the client declared, or 0. An error
// is a *spoolError, or else what reading the body ended with.
func (s Spool) take(body io.Reader, size int64) (*spooled, error) {
	bufs := spoolPool.Get().(*spoolBuffers)
	w := &spoolWriter{conf: s, memory: s.Memory, out: bufs.out[:0], conv: bufs.conv}
	if w.memory == 0 {
		w.memory = defaultSpoolMemory
	}
	if size > w.memory || w.memory < 0 {
		w.memory = 0 // no use in filling the memory first
	}
	err := copyBody(w, body)
	if err == nil {
		err = w.finish()
	}
	bufs.out, bufs.conv = w.out, w.conv
	sp := &spooled{bufs: bufs, header: w.head.header}
	sp.File, sp.Size, sp.Lines = w.file, w.size, w.lines
	if sp.File == nil {
		sp.Data = w.out
	}
	if err != nil {
		sp.Close()
		return nil, err
	}
	return sp, nil
}

// copyBody leaves the pieces to the body where it knows them.
func copyBody(w io.Writer, body io.Reader) error {
	if t, ok := body.(io.WriterTo); ok {
		_, err := t.WriteTo(w)
		return err
	}
	buf := make([]byte, 32<<10)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, body, buf)
	return err
}

// Close releases the body. Nothing may use it afterwards.
func (sp *spooled) Close() error {
	sp.Data = nil
	if cap(sp.bufs.out) <= 2*defaultSpoolMemory {
		spoolPool.Put(sp.bufs)
	}
	if sp.File != nil {
		return sp.File.Close()
	}
	return nil
}

// fileChunk is how much is collected before it is written to the spool file.
const fileChunk = 64 << 10

// spoolWriter converts line ends, looks at the header, and keeps the result in
// memory until that is full and in a file from then on.
type spoolWriter struct {
	conf   Spool
	memory int64
	out    []byte   // the body, or what of it waits to be written to file
	file   *os.File // nil: in memory
	size   int64    // octets stored, those in out included
	lines  int64    // LF without a CR before it
	cr     bool     // a CR that came last and may be half of a CR LF
	last   byte     // last octet stored

	head headerScan
	conv []byte
}

var crlf, lf = []byte("\r\n"), []byte("\n")

// Write takes the next piece of the body as it came from the client.
func (w *spoolWriter) Write(p []byte) (int, error) {
	n := len(p)
	if !w.conf.CRLF {
		p = w.convert(p)
	}
	if err := w.converted(p); err != nil {
		return 0, &spoolError{err}
	}
	return n, nil
}

// convert makes each CR LF an LF, across pieces too; any other CR stays.
func (w *spoolWriter) convert(p []byte) []byte {
	out := w.conv[:0]
	if w.cr && len(p) > 0 {
		w.cr = false
		if p[0] != '\n' {
			out = append(out, '\r')
		}
	}
	for len(p) > 0 {
		i := bytes.Index(p, crlf)
		if i < 0 {
			if w.cr = p[len(p)-1] == '\r'; w.cr {
				p = p[:len(p)-1]
			}
			out = append(out, p...)
			break
		}
		out = append(append(out, p[:i]...), '\n')
		p = p[i+2:]
	}
	w.conv = out
	return out
}

// converted takes octets as they are to be stored.
func (w *spoolWriter) converted(p []byte) error {
	if w.head.done {
		return w.store(p)
	}
	return w.head.feed(p, w.store)
}

// store keeps octets that are part of the stored body.
func (w *spoolWriter) store(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w.count(p)
	if w.file == nil && w.size > w.memory {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.file != nil && len(w.out)+len(p) > fileChunk {
		if err := w.flush(); err != nil {
			return err
		}
		if len(p) >= fileChunk {
			_, err := w.file.Write(p)
			return err
		}
	}
	w.out = append(w.out, p...)
	return nil
}

func (w *spoolWriter) count(p []byte) {
	w.size += int64(len(p))
	w.lines += int64(bytes.Count(p, lf) - bytes.Count(p, crlf))
	if p[0] == '\n' && w.last == '\r' {
		w.lines--
	}
	w.last = p[len(p)-1]
}

func (w *spoolWriter) flush() error {
	_, err := w.file.Write(w.out)
	w.out = w.out[:0]
	return err
}

// open makes the file, without a name from the first moment that we can help it.
func (w *spoolWriter) open() error {
	f, err := os.CreateTemp(w.conf.Dir, ".spool-*")
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("state directory: %w", err)
	}
	w.file = f
	return nil
}

// finish stores what was held back.
func (w *spoolWriter) finish() error {
	var err error
	if w.cr {
		err = w.converted([]byte{'\r'})
	}
	if err == nil {
		err = w.head.finish(w.store)
	}
	if err == nil && w.file != nil {
		err = w.flush()
	}
	if err != nil {
		return &spoolError{err}
	}
	return nil
}
