package maildir

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nothingMade = math.MaxInt // of delivery.made
	interrupts  = 100         // times a call is repeated after EINTR
)

// delivery is one copy on its way into one mailbox. Its phases are methods, each
// to be called once and in order, by one goroutine at a time:
//
//	prepare (place, create, write), syncFile, giveName or giveLastName, syncName, end
//
// A phase that fails leaves the rest to end.
type delivery struct {
	ctx   context.Context
	w     *Writer
	body  *Body
	t     *Target
	index int   // of the target
	size  int64 // octets of the file
	res   Result

	claim atomic.Int32 // who tells the outcome
	hung  atomic.Bool  // a single copy: it hangs, or has come back
	lost  bool         // the thread at hand did not get its credentials back

	base string // the mailbox below the root: path, or path and folder
	sub  string // where the message gets its name: "new", or "cur" with flags
	dir  string // see newDir
	made int    // depth of the topmost directory that got a new one, or nothingMade
	dev  device // of new/

	root, new, tmp, file int // descriptors, -1 if closed; new is that of sub
	sizes                int // of maildirsize, to append to

	asks    bool  // whether there is room; there is no message
	usageAt int64 // length of the maildirsize that res.Usage was before the message; -1: not known

	sharing *sharing    // with other copies of the call; nil: none
	common  *sharedFile // the file that it shares, once there is one
	cloning *cloning    // with other copies of the batch; nil: none
	source  *cloneSource

	party   *party      // with other copies of the batch, or alone; nil: it syncs new/ itself
	disk    disk        // what is known of the file system of new/
	begun   int64       // octets of the file whose write-back has begun
	classic bool        // by way of tmp/
	ino     unix.Stat_t // of file
	tmpName string      // the file's name in tmp/, while it has one
	newName string      // the file's name in new/, once it has one
}

func newDelivery(ctx context.Context, w *Writer, b *Body, t *Target, index int) *delivery {
	size := int64(len(t.Header)) + b.Size
	return &delivery{
		ctx: ctx, w: w, body: b, t: t, index: index, size: size, made: nothingMade,
		root: -1, new: -1, tmp: -1, file: -1, sizes: -1, sub: "new",
		res: Result{Size: size},
	}
}

// errUnfinished stands until a bracket of the owner's credentials has been run to
// its end: whatever ends it early must not look like a success.
var errUnfinished = errors.New("delivery was not finished")

// asOwner runs steps with the owner's credentials.
func (d *delivery) asOwner(steps func() error) error {
	err := errUnfinished
	if e := d.w.as(d.t.Owner, func() { err = steps() }); e != nil {
		return d.fail(OpBecome, d.t.Root, e)
	}
	return err
}

// steps are all phases but the last, which needs nobody's credentials, in one: for a
// copy that goes by itself.
func (d *delivery) steps() error {
	err := d.writeFile()
	if err == nil {
		err = d.syncFile()
	}
	if err != nil {
		return err
	}
	if !d.ordered() {
		return d.nameFile()
	}
	d.party = &party{last: d}
	return d.nameLast()
}

// asOwnerHere is asOwner in the calling goroutine, which has to end if it sets d.lost.
func (d *delivery) asOwnerHere(steps func() error) error {
	err := errUnfinished
	lost, e := d.w.asHere(d.t.Owner, func() { err = steps() })
	d.lost = d.lost || lost
	if e != nil {
		return d.fail(OpBecome, d.t.Root, e)
	}
	return err
}

// prepare is the first phase of copies that go together. It also begins the
// write-back, so that the disk is at work before the first sync; with nobody's
// credentials, for a thread that has some is expensive to wait with.
func (d *delivery) prepare() error {
	err := d.asOwnerHere(d.writeFile)
	if err == nil && d.file >= 0 && d.w.Durability != None {
		// A hint: where it is not understood, the sync does all the work.
		_ = unix.SyncFileRange(d.file, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return err
}

// writeFile finds or makes the mailbox and writes the file.
func (d *delivery) writeFile() error {
	begin := d.w.now()
	if err := d.place(); err != nil {
		return err
	}
	if d.t.Seek {
		if err := d.seek(); err != nil {
			return err
		}
	}
	if err := d.checkQuota(d.size); err != nil {
		return err
	}
	return d.fillShared(begin, sharePrepare)
}

// fill makes the file and writes it.
func (d *delivery) fill(begin time.Time) error {
	if err := d.create(); err != nil {
		return err
	}
	opened := d.w.now()
	d.res.Open += opened.Sub(begin)
	if err := d.write(); err != nil {
		return err
	}
	d.res.Write += d.w.now().Sub(opened)
	return nil
}

// syncFile is the second phase. A descriptor needs nobody's credentials.
func (d *delivery) syncFile() error {
	begin := d.w.now()
	err := d.syncShared()
	d.res.Sync += d.w.now().Sub(begin)
	return err
}

// giveName is the third phase.
func (d *delivery) giveName() error {
	if d.isLast() {
		return nil
	}
	return d.asOwnerHere(d.nameFile)
}

// giveLastName is the fourth phase, in which the last copy of each party is named.
func (d *delivery) giveLastName() error {
	if !d.isLast() {
		return nil
	}
	return d.asOwnerHere(d.nameLast)
}

// nameFile gives the file its name. From its first step on, only the copy itself
// can say what became of it.
func (d *delivery) nameFile() error {
	if !d.claim.CompareAndSwap(claimFree, claimNaming) {
		return d.fail(OpWait, d.t.Root, context.DeadlineExceeded)
	}
	begin := d.w.now()
	d.closeSource()
	err := d.nameShared()
	if errors.Is(err, errUnnamed) {
		// The file system makes unnamed files but cannot name them. Take the
		// classic way, and if that works take it at once the next time.
		_ = d.discard() // it has no name
		d.leaveSharing()
		d.classic = true
		if err = d.again(); err == nil {
			d.w.wantsTmp(d.dev)
		}
	}
	d.res.Name += d.w.now().Sub(begin)
	return err
}

// again writes the file once more, by way of tmp/, and names it.
func (d *delivery) again() error {
	err := d.fill(d.w.now())
	if err == nil {
		err = d.sync()
	}
	if err == nil {
		err = d.name()
	}
	return err
}

// syncName is the last phase.
func (d *delivery) syncName() error {
	begin := d.w.now()
	err := d.syncDir()
	if err == nil {
		d.account()
	}
	d.res.Name += d.w.now().Sub(begin)
	return err
}

// end notes the outcome, takes back what a failure left, and closes everything.
func (d *delivery) end(err error) {
	if err == errFound {
		err = nil
	}
	d.res.Err = err
	if err == nil {
		d.close()
		return
	}
	// What is taken back belongs to the owner, and so does the directory.
	var left error
	_ = d.asOwner(func() error { left = d.discard(); return nil })
	var e *Error
	if left != nil && errors.As(err, &e) {
		e.Err = fmt.Errorf("%w; a redelivery makes a second copy: %v", e.Err, left)
	}
	d.close()
}

// do takes one system call of a step: the test's seam first, again if a signal
// interrupted it, and with an *Error for whatever goes wrong.
func (d *delivery) do(op, path string, call func() error) error {
	if err := d.alive(op, path); err != nil {
		return err
	}
	if d.w.Before != nil {
		if err := d.w.Before(op, path); err != nil {
			return d.fail(op, path, err)
		}
	}
	err := call()
	for range interrupts {
		if err != unix.EINTR {
			break
		}
		err = call()
	}
	if err != nil {
		return d.fail(op, path, err)
	}
	return nil
}

// alive is the context's error as long as the message has no name.
func (d *delivery) alive(op, path string) error {
	if d.newName == "" && d.ctx.Err() != nil {
		return d.fail(op, path, context.Cause(d.ctx))
	}
	return nil
}

// close gives all descriptors back.
func (d *delivery) close() {
	for _, fd := range []*int{&d.file, &d.tmp, &d.new, &d.root, &d.sizes} {
		closeFD(fd)
	}
	d.leaveSharing()
	d.leaveClones()
}

func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}
