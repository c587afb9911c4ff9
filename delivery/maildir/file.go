package maildir

import (
	"errors"
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

const nameTries = 5 // names tried before a collision is an error

// create opens the file that will be the message: an unnamed one in new/, or
// one in tmp/ where the file system has none.
func (d *delivery) create() error {
	d.disk = d.w.disk(d.new, d.dev)
	d.classic = d.classic || d.disk.classic
	if !d.classic {
		dir := d.newDir()
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
		file := d.newDir() + "/" + name
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

// link names an unnamed file. The way by /proc needs no capability. The other is for
// places without /proc, and costs half as much, but before Linux 6.10 it needs one, and
// since then the very credentials that have opened the file: it is tried where nobody
// switches them, until it fails.
func (d *delivery) link(name string) error {
	byFD := func() error { return unix.Linkat(d.file, "", d.new, name, unix.AT_EMPTY_PATH) }
	if d.t.Owner == nil && !d.w.linksByPath.Load() {
		err := byFD()
		if err != unix.ENOENT {
			return err
		}
		d.w.linksByPath.Store(true)
	}
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(d.file), d.new, name, unix.AT_SYMLINK_FOLLOW)
	if err == unix.ENOENT {
		if byFD() == nil {
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

// syncDir brings the name to disk, and what of the file is not there. Where the order
// is kept, the sync of the directory brings all of that.
func (d *delivery) syncDir() error {
	if d.w.Durability != Full || d.isCovered() {
		return nil
	}
	if d.common != nil && !d.disk.ordered {
		if err := d.common.syncNamed(d); err != nil {
			return err
		}
	}
	return d.syncNew()
}

// syncNew syncs the directory in which the file has its name.
func (d *delivery) syncNew() error {
	return d.fsyncDir(OpSyncDir, d.newDir(), d.new)
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

// filePath names the file while it is written, for people.
func (d *delivery) filePath() string {
	if d.tmpName != "" {
		return d.abs(path.Join(d.base, "tmp", d.tmpName))
	}
	return d.newDir()
}

// newDir is the path of the directory in which the file gets its name, once it is placed.
func (d *delivery) newDir() string {
	if d.dir == "" {
		d.dir = d.abs(path.Join(d.base, d.sub))
	}
	return d.dir
}

// unsupported reports whether a file system (or an old kernel) does not know
// what it was asked for.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}
