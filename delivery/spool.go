package delivery

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Spool says where a body waits between its arrival and its last copy. It is read
// from the connection once, converted on the way, and never held in memory beyond
// Memory.
type Spool struct {
	Dir    string // for files, which have no name there; never /tmp
	Memory int64  // octets up to which a body stays in memory; 0: 256 KiB; negative: none
	CRLF   bool   // store lines with CR LF as they came, instead of with LF

	sum    bool     // of the body as it comes
	fields []string // names of header fields to keep, in lower case
	mark   string   // Received fields with this text are counted
}

const (
	defaultSpoolMemory = 256 << 10
	fileChunk          = 64 << 10 // octets collected before they are written to the file
	maxPooled          = 2 * defaultSpoolMemory
)

// spooled is a body ready to be written. It is valid until Close, which gives its
// memory or file back.
type spooled struct {
	maildir.Body
	header messageHeader
	sum    [sha256.Size]byte // of the body as it came, if the Spool was asked for it
	w      *spoolWriter
	users  atomic.Int32
}

// spoolWriters keep their buffers for the next message.
var spoolWriters = sync.Pool{New: func() any { return new(spoolWriter) }}

// Causes of a *spoolError, for the table of replies.
var (
	errSpool     = errors.New("message could not be kept")
	errSpoolFull = errors.New("no room to keep the message")
)

// spoolError is a failure to keep the body, as against one to receive it.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return "state directory: " + e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// Is sorts it: a quota in the state directory is not that of a mailbox.
func (e *spoolError) Is(target error) bool {
	switch target {
	case errSpoolFull:
		return errors.Is(e.err, syscall.ENOSPC) || errors.Is(e.err, syscall.EDQUOT) || errors.Is(e.err, syscall.EFBIG)
	case errSpool:
		return true
	}
	return false
}

// take reads a body to its end. size is what the client declared, or 0. An error
// is a *spoolError, or else what reading the body ended with.
func (s Spool) take(body io.Reader, size int64) (*spooled, error) {
	w := spoolWriters.Get().(*spoolWriter)
	w.reset(s, size)
	err := copyBody(w, body)
	if err == nil {
		err = w.finish()
	}
	sp := &spooled{w: w, header: w.head.header}
	if s.sum {
		w.hash.Sum(sp.sum[:0])
	}
	sp.users.Store(1)
	sp.Retain = sp.retain
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

// copyBody leaves the size of the pieces to the body where it knows them.
func copyBody(w io.Writer, body io.Reader) error {
	if t, ok := body.(io.WriterTo); ok {
		_, err := t.WriteTo(w)
		return err
	}
	_, err := io.CopyBuffer(w, body, make([]byte, 32<<10))
	return err
}

// Close releases the body, unless a copy that hangs has retained it; then its
// release does.
func (sp *spooled) Close() error {
	if sp.users.Add(-1) > 0 {
		return nil
	}
	w := sp.w
	sp.w, sp.Data = nil, nil
	if cap(w.out) <= maxPooled {
		w.file = nil
		spoolWriters.Put(w)
	}
	if sp.File != nil {
		return sp.File.Close()
	}
	return nil
}

func (sp *spooled) retain() (release func()) {
	sp.users.Add(1)
	return func() { sp.Close() }
}

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
	conv []byte    // one piece with its line ends converted
	hash hash.Hash // nil: never asked for
}

// reset makes w ready for another message, with the buffers of the last one.
func (w *spoolWriter) reset(conf Spool, size int64) {
	*w = spoolWriter{
		conf: conf, memory: conf.Memory, out: w.out[:0], conv: w.conv[:0], hash: w.hash,
		head: headerScan{names: conf.fields, mark: conf.mark, held: w.head.held[:0], value: w.head.value[:0]},
	}
	if w.memory == 0 {
		w.memory = defaultSpoolMemory
	}
	if size > w.memory || w.memory < 0 {
		w.memory = 0 // no use in filling the memory first
	}
	if conf.sum {
		if w.hash == nil {
			w.hash = sha256.New()
		}
		w.hash.Reset()
	}
}

var crlf, lf = []byte("\r\n"), []byte("\n")

// Write takes the next piece of the body as it came from the client.
func (w *spoolWriter) Write(p []byte) (int, error) {
	n := len(p)
	if w.conf.sum {
		w.hash.Write(p)
	}
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
		var err error
		if w.file, err = w.conf.open(); err != nil {
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

// oTmpfile is O_TMPFILE, which the syscall package lacks; the number is that of
// every architecture of Linux that Go runs on.
const oTmpfile = 0x400000 | syscall.O_DIRECTORY

// open makes a file that goes away with its last descriptor, however this process
// ends: one that never has a name, or, where the file system has no such files,
// one that loses it at once.
func (s Spool) open() (*os.File, error) {
	if s.Dir == "" {
		return nil, errors.New("none is set")
	}
	f, err := os.OpenFile(s.Dir, os.O_RDWR|oTmpfile|os.O_EXCL, 0o600)
	if err == nil || !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.EISDIR) && !errors.Is(err, syscall.EINVAL) {
		return f, err
	}
	if f, err = os.CreateTemp(s.Dir, ".spool-*"); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
