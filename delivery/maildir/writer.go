package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Body is a message body as it is to be stored, line ends already converted.
// All targets of a call share it. It is only read, and must not change until
// Deliver returns.
type Body struct {
	Data  []byte   // the whole body when it is in memory, else nil
	File  *os.File // read from offset 0 without moving the file's own offset
	Size  int64    // octets
	Lines int64    // number of LF not preceded by CR, so that W= is known without reading
}

// Owner is the account a copy is written as.
type Owner struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups
}

// Target is one copy to be written.
type Target struct {
	Owner  *Owner // nil: as the process is
	Root   string // absolute path of a directory that must exist already
	Path   string // the Maildir relative to Root, created if missing; "" means Root itself
	Folder string // Maildir++ folder as stored (".lists"); "" or one that does not exist means INBOX
	Header []byte // written before the body

	// Account is the address whose mailbox this is, in the form of
	// userdb.Address.String. The Writer does not look at it; it is for those
	// who ask again whether Owner, Root and Path are that account's.
	Account string
}

// Result is the outcome of one copy.
type Result struct {
	File   string // absolute path of the new file
	Folder string // the folder it went to, "" for INBOX
	Size   int64  // octets of the file, header included
	Err    error  // nil: delivered; else an *Error

	// How long the parts took: Open finds (or makes) the mailbox and opens the
	// file, Sync covers the file, Name the link and the sync of the directory.
	Open, Write, Sync, Name time.Duration
}

// Durability says what is on disk when a copy is reported as delivered.
type Durability int

const (
	Full     Durability = iota // file and directory entry are synced
	FileOnly                   // the file is synced; its name may be lost in a power cut
	None                       // nothing is synced; a power cut may lose the last half minute
)

var durabilityNames = [...]string{Full: "full", FileOnly: "file", None: "none"}

// String returns the name used in the configuration: full, file or none.
func (d Durability) String() string {
	if d < 0 || int(d) >= len(durabilityNames) {
		return fmt.Sprintf("durability(%d)", int(d))
	}
	return durabilityNames[d]
}

// UnmarshalText reads full, file or none.
func (d *Durability) UnmarshalText(text []byte) error {
	for i, name := range durabilityNames {
		if name == string(text) {
			*d = Durability(i)
			return nil
		}
	}
	return fmt.Errorf("durability %q is none of full, file, none", text)
}

// Defaults of the zero Writer.
const (
	DefaultParallel = 64
	DefaultMinUID   = 1000
)

// Writer writes messages into Maildirs. The zero value is ready to use; fields
// must not change after the first call, and a Writer must not be copied. Its
// methods may be called from several goroutines.
//
// One copy holds at most four descriptors at a time, so the Writer as a whole
// holds at most four times Parallel.
type Writer struct {
	Hostname   string           // last part of file names; "" means "localhost"
	DirMode    os.FileMode      // of directories it makes, whatever the umask; 0 means 0700
	FileMode   os.FileMode      // of messages, whatever the umask; 0 means 0600
	Durability Durability       // Full by default
	Parallel   int              // copies written at a time by all calls together; 0 means DefaultParallel
	MinUID     uint32           // lowest uid it switches to; 0 means DefaultMinUID
	Clock      func() time.Time // nil means time.Now

	// Before, if set, is called before each step with its name (an Op constant)
	// and path, by the thread that will take it. An error it returns is the
	// step's error, and the step is not taken. It exists for tests.
	Before func(op, path string) error

	once    sync.Once
	slots   chan struct{}
	serial  atomic.Uint64 // deliveries so far, part of each name
	named   deviceSet     // devices without unnamed files
	settled dirSet        // mailboxes whose parents are known to be on disk
}

// Deliver writes the body to each target. It calls done exactly once for each,
// with the target's index, in any order and from any goroutine, and returns
// when all calls have returned. The failure of one target never touches another.
//
// ctx bounds the wait for a free slot and every step before the message has its
// name; a copy that ctx ended was certainly not delivered. A system call that
// hangs is not interrupted.
func (w *Writer) Deliver(ctx context.Context, b Body, targets []Target, done func(i int, r Result)) {
	w.once.Do(func() { w.slots = make(chan struct{}, w.parallel()) })
	workers := min(len(targets), w.parallel())
	if workers == 1 {
		for i := range targets {
			done(i, w.deliverOne(ctx, &b, &targets[i]))
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(targets)); i = next.Add(1) - 1 {
				done(int(i), w.deliverOne(ctx, &b, &targets[i]))
			}
		})
	}
	wg.Wait()
}

// deliverOne writes one copy once a slot is free.
func (w *Writer) deliverOne(ctx context.Context, b *Body, t *Target) Result {
	d := newDelivery(ctx, w, b, t)
	if err := d.check(); err != nil {
		d.res.Err = err
		return d.res
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		d.res.Err = d.fail(OpWait, t.Root, context.Cause(ctx))
		return d.res
	}
	if err := w.as(t.Owner, d.run); err != nil {
		d.res.Err = d.fail(OpBecome, t.Root, err)
	}
	return d.res
}

func (w *Writer) parallel() int {
	if w.Parallel <= 0 {
		return DefaultParallel
	}
	return w.Parallel
}

func (w *Writer) now() time.Time {
	if w.Clock == nil {
		return time.Now()
	}
	return w.Clock()
}

func (w *Writer) dirMode() uint32  { return permOr(w.DirMode, 0o700) }
func (w *Writer) fileMode() uint32 { return permOr(w.FileMode, 0o600) }

func permOr(m fs.FileMode, def uint32) uint32 {
	if m.Perm() == 0 {
		return def
	}
	return uint32(m.Perm())
}

// check refuses bodies and targets that the caller should not have made.
func (d *delivery) check() error {
	switch b := d.body; {
	case b.Size < 0, b.Lines < 0,
		b.File == nil && b.Size != int64(len(b.Data)):
		return d.fail(OpCheck, d.t.Root, errors.New("size of the body does not fit its data"))
	}
	if !validRoot(d.t.Root) || !validPath(d.t.Path) {
		return d.fail(OpCheck, d.t.Root, fmt.Errorf("%w: %q below %q", ErrPath, d.t.Path, d.t.Root))
	}
	return nil
}
