package maildir

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nothingMade = math.MaxInt // of delivery.made
	nameTries   = 5           // names tried before a collision is an error
	interrupts  = 100         // times a call is repeated after EINTR

	// fewDeliveries is up to how many at a time content and name are synced together.
	// The commits of more of them serve several anyway, and syncs that wait for each
	// other's directories make it slower.
	fewDeliveries = 4
)

// delivery is one copy on its way into one mailbox. Its phases are methods, each
// to be called once and in order, by one goroutine at a time:
//
//	prepare (place, create, write), syncFile, giveName, syncName, end
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

	shared bool         // goes with other copies
	claim  atomic.Int32 // who tells the outcome
	hung   atomic.Bool  // a single copy: it hangs, or has come back
	lost   bool         // the thread at hand did not get its credentials back

	base string // the mailbox below the root: path, or path and folder
	sub  string // where the message gets its name: "new", or "cur" with flags
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

// steps are all phases in one, for a copy that goes by itself.
func (d *delivery) steps() error {
	err := d.writeFile()
	if err == nil {
		err = d.syncFile()
	}
	if err == nil {
		err = d.nameFile()
	}
	if err == nil {
		err = d.syncName()
	}
	return err
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

// prepare is the first phase.
func (d *delivery) prepare() error { return d.asOwnerHere(d.writeFile) }

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

// fill makes the file and writes it. It begins the write-back of a copy that goes
// with others, so that the disk is at work before the first sync.
func (d *delivery) fill(begin time.Time) error {
	if err := d.create(); err != nil {
		return err
	}
	opened := d.w.now()
	d.res.Open += opened.Sub(begin)
	if err := d.write(); err != nil {
		return err
	}
	if d.shared && d.w.Durability != None {
		// A hint: where it is not understood, the sync does all the work.
		_ = unix.SyncFileRange(d.file, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
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
func (d *delivery) giveName() error { return d.asOwnerHere(d.nameFile) }

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

// create opens the file that will be the message: an unnamed one in new/, or
// one in tmp/ where the file system has none.
func (d *delivery) create() error {
	d.disk = d.w.disk(d.new, d.dev)
	d.disk.ordered = d.disk.ordered && len(d.w.slots) <= fewDeliveries
	d.classic = d.classic || d.disk.classic
	if !d.classic {
		dir := d.abs(path.Join(d.base, d.sub))
		err := d.do(OpUnnamed, dir, func() (err error) {
			d.file, err = unix.Openat(d.new, ".", unix.O_TMPFILE|d.access()|unix.O_CLOEXEC, d.w.fileMode())
			return err
		})
		switch {
		case unsupported(err), errors.Is(err, unix.EISDIR): // EISDIR from kernels and layers that do not know the flag
			d.classic = true
			d.w.wantsTmp(d.dev)
		case err != nil:
			return err
		default:
			return d.created(dir)
		}
	}
	return d.createTmp()
}

// createTmp creates the file in tmp/.
func (d *delivery) createTmp() (err error) {
	rel := path.Join(d.base, "tmp")
	d.tmp, err = d.openDir(rel, searchDir)
	if errors.Is(err, unix.ENOENT) { // some readers and backups drop empty directories
		d.tmp, err = d.makeDirs("tmp")
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(d.tmp, &st); err == nil {
		err = d.notForeign(st.Uid)
	}
	if err != nil {
		return d.fail(OpOpen, d.abs(rel), err)
	}
	for range nameTries {
		name := d.newFileName()
		abs := d.abs(path.Join(rel, name))
		err = d.do(OpCreate, abs, func() (err error) {
			d.file, err = unix.Openat(d.tmp, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|
				d.access()|unix.O_CLOEXEC, d.w.fileMode())
			return err
		})
		if err == nil {
			d.tmpName = name
			return d.created(abs)
		}
		if !errors.Is(err, unix.EEXIST) {
			// It may have been made all the same: a network file system whose reply
			// was lost, or one that failed while it looked at what it had made.
			_ = unix.Unlinkat(d.tmp, name, 0)
			break
		}
	}
	return err
}

// created looks at the new file and gives it its mode.
func (d *delivery) created(abs string) error {
	return d.statMode(d.file, &d.ino, abs, d.w.fileMode())
}

// newFileName returns a name that no file has yet.
func (d *delivery) newFileName() string {
	size := d.res.Size
	return d.w.newName(d.t.Token, size, size+lines(d.t.Header)+d.body.Lines)
}

// info is what a name in cur/ has at its end.
func (d *delivery) info() string {
	if d.t.Flags == "" {
		return ""
	}
	return ":2," + d.t.Flags
}

// sync brings the file's content to disk; where the file system keeps the order, so
// far that no name given from now on can be durable without it.
func (d *delivery) sync() error {
	switch {
	case d.w.Durability == None:
		return nil
	case d.disk.ordered:
		const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		err := d.do(OpWriteBack, d.filePath(), func() error { return unix.SyncFileRange(d.file, 0, 0, all) })
		if !unsupported(err) && !errors.Is(err, unix.EPERM) {
			return err
		}
		d.disk.ordered = false // a sandbox may forbid the call
	}
	return d.do(OpSync, d.filePath(), func() error { return unix.Fsync(d.file) })
}

// errUnnamed: the unnamed file cannot be given a name on this file system.
var errUnnamed = errors.New("unnamed file cannot be named")

// name gives the file its name in new/. From here on a reader may have it.
func (d *delivery) name() error {
	op := OpLink
	if d.classic {
		op = OpRename
	}
	var err error
	for range nameTries {
		name := d.newFileName() + d.info()
		file := d.abs(path.Join(d.base, d.sub, name))
		err = d.do(op, file, func() error {
			if d.classic {
				return d.rename(name)
			}
			return d.link(name)
		})
		// A network file system may do what it was asked and report an error
		// all the same (a reply lost, the request sent again).
		if err == nil || d.isOurs(name) {
			d.newName, d.tmpName = name, ""
			d.res.File = file
			return nil
		}
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if !d.classic && d.ctx.Err() == nil && (unsupported(err) || errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM)) {
		return fmt.Errorf("%w: %w", errUnnamed, err)
	}
	return err
}

// link names an unnamed file. The way by /proc needs no capability; the other
// is for places without /proc, and needs one before Linux 6.10.
func (d *delivery) link(name string) error {
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(d.file), d.new, name, unix.AT_SYMLINK_FOLLOW)
	if err == unix.ENOENT {
		if unix.Linkat(d.file, "", d.new, name, unix.AT_EMPTY_PATH) == nil {
			return nil
		}
	}
	return err
}

// rename moves the file from tmp/ to new/ without ever replacing another: by
// renameat2, where that is missing (NFS) by link and unlink, and where there
// are no links by a plain rename, for which the name's random bits must do.
func (d *delivery) rename(name string) error {
	err := unix.Renameat2(d.tmp, d.tmpName, d.new, name, unix.RENAME_NOREPLACE)
	if !unsupported(err) {
		return err
	}
	err = unix.Linkat(d.tmp, d.tmpName, d.new, name, 0)
	if err == nil {
		unix.Unlinkat(d.tmp, d.tmpName, 0) // if that fails, litter in tmp/ is all it leaves
		return nil
	}
	if unsupported(err) || err == unix.EPERM {
		return unix.Renameat(d.tmp, d.tmpName, d.new, name)
	}
	return err
}

// isOurs reports whether name in new/ is the file of this delivery.
func (d *delivery) isOurs(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(d.new, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		st.Dev == d.ino.Dev && st.Ino == d.ino.Ino
}

// syncDir brings the name to disk, and what of the file is not there.
func (d *delivery) syncDir() error {
	if d.w.Durability != Full {
		return nil
	}
	if d.common != nil {
		if err := d.common.syncNamed(d); err != nil {
			return err
		}
	} else if d.disk.ordered {
		err := d.do(OpSyncNamed, d.res.File, func() error { return unix.Fsync(d.file) })
		if err != nil {
			return err
		}
	}
	return d.do(OpSyncDir, d.abs(path.Join(d.base, d.sub)), func() error { return unix.Fsync(d.new) })
}

// discard takes back what a failed delivery left: its file in tmp/ or new/, and
// the descriptors of the file. An error means that the message still has its
// name in new/, or that a reader has already taken it from there.
func (d *delivery) discard() (err error) {
	if d.tmpName != "" {
		_ = d.remove(d.tmp, "tmp", d.tmpName) // litter at worst
	}
	if d.newName != "" {
		err = d.remove(d.new, d.sub, d.newName)
	}
	d.tmpName, d.newName, d.res.File = "", "", ""
	closeFD(&d.file)
	closeFD(&d.tmp)
	return err
}

// remove unlinks a file of this delivery, past its deadline too.
func (d *delivery) remove(at int, sub, name string) error {
	abs := d.abs(path.Join(d.base, sub, name))
	if d.w.Before != nil {
		if err := d.w.Before(OpRemove, abs); err != nil {
			return d.fail(OpRemove, abs, err)
		}
	}
	if err := unix.Unlinkat(at, name, 0); err != nil {
		return d.fail(OpRemove, abs, err)
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

// filePath names the file while it is written, for people.
func (d *delivery) filePath() string {
	if d.tmpName != "" {
		return d.abs(path.Join(d.base, "tmp", d.tmpName))
	}
	return d.abs(path.Join(d.base, d.sub))
}

// unsupported reports whether a file system (or an old kernel) does not know
// what it was asked for.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}
