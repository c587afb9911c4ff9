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
// Deliver returns, or until it is released where it was retained.
type Body struct {
	Data  []byte   // the whole body when it is in memory, else nil
	File  *os.File // read from offset 0 without moving the file's own offset
	Size  int64    // octets
	Lines int64    // number of LF not preceded by CR, so that W= is known without reading

	// Retain, if set, allows Deliver to return at its deadline although a system
	// call hangs that may yet read the body: it is called at most once, before
	// Deliver returns, and release when the body is no longer used.
	Retain func() (release func())
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

	// MakeFolder makes a folder that does not exist, and subscribes to it, unless
	// the mailbox has very many or its name is taken by something else.
	MakeFolder bool
	// Flags, if not "", are those of the Maildir text in ASCII order ("S": seen).
	// Such a message gets its name in cur/ at once.
	Flags string

	// Token, if not "", is part of the file's name, in place of random digits: up
	// to 32 hexadecimal ones in lower case that no other copy has. With Seek, a
	// copy with this token is looked for first, in new/ and cur/ of the mailbox;
	// where it is found, nothing is written and Result.Found is set.
	Token string
	Seek  bool

	// Quota, if not nil, is what the mailbox may hold; with no limit in it, those of
	// an existing maildirsize hold.
	Quota *Quota

	// Share lets the copy be one file with others of the same call that have Share
	// set, the same Owner and the same Header, by hard links, where they lie on one
	// file system. Their sizes are the same, all else is each one's own. Elsewhere, and
	// where linking fails, it is a file of its own.
	Share bool

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
	Found  bool   // Target.Seek: the copy was there already; its size is not looked at
	Err    error  // nil: delivered; else an *Error
	// Usage is what the mailbox holds with this copy, if Target.Quota was given and
	// there is a limit; the messages of copies that came at the same time may be
	// missing. Of a copy that is refused it is what the mailbox holds without it.
	Usage Usage
	// Warning is what went wrong besides, such as a subscription that could not be
	// noted.
	Warning error

	// Stale is how many stale files were removed, from this tmp/ or others, since the
	// result before.
	Stale int64

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
// must not change after the first call, nor must the credentials of the process, and
// a Writer must not be copied. Its methods may be called from several goroutines.
//
// A copy on its way holds two descriptors, and two more at its beginning.
type Writer struct {
	Hostname   string           // last part of file names; "" means "localhost"
	DirMode    os.FileMode      // of directories it makes, whatever the umask; 0 means 0700
	FileMode   os.FileMode      // of messages, whatever the umask; 0 means 0600
	Durability Durability       // Full by default
	Order      SyncOrder        // of the steps with durability Full; SyncAuto by default
	Parallel   int              // batches of up to 64 copies written at a time by all calls together; 0 means DefaultParallel
	MinUID     uint32           // lowest uid it switches to; 0 means DefaultMinUID
	Clock      func() time.Time // nil means time.Now

	// RemoveStale removes files from tmp/ that nobody has touched for 36 hours, some
	// time after a delivery to the mailbox. Stale, if set, is told where that removed
	// any or failed; it may be called from several goroutines.
	RemoveStale bool
	Stale       func(Stale)

	// Before, if set, is called before each step with its name (an Op constant)
	// and path, by the thread that will take it. An error it returns is the
	// step's error, and the step is not taken. It exists for tests.
	Before func(op, path string) error

	linksByPath atomic.Bool // unnamed files cannot be named by their descriptor alone

	once    sync.Once
	self    self
	slots   chan struct{}
	serial  atomic.Uint64   // deliveries so far, part of each name
	hung    hungCopies      // copies that nobody waits for any more
	commits commits[device] // of file systems that keep the order
	disks   disks           // what is known of file systems
	stale   staleKeeper     // tmp/ that were looked at
	settled dirSet          // mailboxes whose parents are known to be on disk

	dirSyncs commits[dirID] // of directories whose syncs overtake each other
}

// Deliver writes the body to each target. It calls done exactly once for each,
// with the target's index, in any order and from any goroutine, and returns
// when all calls have returned. The failure of one target never touches
// another, and one that hangs does not hold the others up.
//
// ctx bounds the wait for a free slot and every step before the message has its
// name; a copy that ctx ended was certainly not delivered. That holds for a
// system call that hangs too, if the body can be retained.
func (w *Writer) Deliver(ctx context.Context, b Body, targets []Target, done func(i int, r Result)) {
	if len(targets) == 0 {
		return
	}
	w.once.Do(func() { w.slots = make(chan struct{}, w.parallel()) })
	c := &call{w: w, ctx: ctx, done: done, retain: b.Retain, all: make(chan struct{})}
	c.copies = make([]*delivery, len(targets))
	c.unsettled.Store(int64(len(targets)))
	c.using.Store(int64(len(targets)) + 1)
	for i := range targets {
		c.copies[i] = newDelivery(ctx, w, &b, &targets[i], i)
	}
	share(c.copies)
	if len(targets) == 1 {
		c.single(c.copies[0])
	} else {
		go c.run()
	}
	c.wait()
	c.unused()
}

// run takes the copies through the phases, a batch at a time.
func (c *call) run() {
	for rest := c.copies; len(rest) > 0; {
		n := min(batchSize, len(rest))
		c.batch(rest[:n])
		rest = rest[n:]
	}
}

// batch waits for a slot and takes its copies through the phases.
func (c *call) batch(copies []*delivery) {
	ready := copies[:0:0]
	for _, d := range copies {
		if c.admit(d) {
			ready = append(ready, d)
		}
	}
	if len(ready) == 0 || !c.slot(ready) {
		return
	}
	defer c.w.freeSlot()
	c.together(ready)
}

// admit settles a copy at once that need not be begun.
func (c *call) admit(d *delivery) bool {
	err := d.check()
	if err == nil {
		if err = c.w.busy(d); err != nil {
			err = d.fail(OpWait, d.t.Root, err)
		}
	}
	if err != nil {
		c.settle(d, err)
	}
	return err == nil
}

// slot waits for a slot, or settles the copies when the context ends first.
func (c *call) slot(copies []*delivery) bool {
	select {
	case c.w.slots <- struct{}{}:
		return true
	case <-c.ctx.Done():
	}
	for _, d := range copies {
		c.settle(d, d.fail(OpWait, d.t.Root, context.Cause(c.ctx)))
	}
	return false
}

func (w *Writer) freeSlot() { <-w.slots }

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
	if !validToken(d.t.Token) || d.t.Seek && d.t.Token == "" {
		return d.fail(OpCheck, d.t.Root, fmt.Errorf("token %q cannot be part of a file name", d.t.Token))
	}
	if !validFlags(d.t.Flags) {
		return d.fail(OpCheck, d.t.Root, fmt.Errorf("flags %q are none", d.t.Flags))
	}
	if !validRoot(d.t.Root) || !validPath(d.t.Path) {
		return d.fail(OpCheck, d.t.Root, fmt.Errorf("%w: %q below %q", ErrPath, d.t.Path, d.t.Root))
	}
	return nil
}
