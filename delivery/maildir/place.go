package maildir

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How directories below the root are opened. O_DIRECTORY is checked before
// anything is opened, so a FIFO or device in a directory's place cannot block;
// O_NONBLOCK says so once more.
const (
	readDir   = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK | unix.O_CLOEXEC
	searchDir = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
)

// settleAge is how old new/ must be for its parents to be on disk without our
// doing: the kernel writes directories back within half a minute.
const settleAge = 5 * time.Minute

// place opens the root and the directory in the mailbox where the message will get
// its name, and makes what is missing.
func (d *delivery) place() error {
	err := d.placeMailbox()
	if err == nil && d.t.Flags != "" {
		err = d.enterCur()
	}
	return err
}

// placeMailbox opens the root and new/ of the mailbox or folder.
func (d *delivery) placeMailbox() error {
	if err := d.openRoot(); err != nil {
		return err
	}
	if err := d.placeFolder(); err != nil || d.new >= 0 {
		return err
	}
	d.base = d.t.Path
	var err error
	d.new, err = d.openDir(path.Join(d.base, "new"), readDir)
	if errors.Is(err, unix.ENOENT) {
		// new/ comes last: where it exists, so do the others.
		d.new, err = d.makeDirs("cur", "tmp", "new")
	}
	if err != nil {
		return err
	}
	return d.settle()
}

func (d *delivery) openRoot() error {
	err := d.do(OpRoot, d.t.Root, func() (err error) {
		d.root, err = unix.Open(d.t.Root, searchDir, 0)
		return err
	})
	if err != nil {
		var e *Error
		if errors.As(err, &e) && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
			e.Err = fmt.Errorf("%w: %w", ErrRoot, e.Err)
		}
		return err
	}
	return nil
}

// openDir opens a directory relative to the root, following no link.
func (d *delivery) openDir(rel string, flags uint64) (int, error) {
	return d.openDirAt(d.root, rel, d.abs(rel), flags)
}

func (d *delivery) openDirAt(at int, rel, abs string, flags uint64) (int, error) {
	fd := -1
	err := d.do(OpOpen, abs, func() (err error) {
		if rel == "" {
			rel = "." // the root itself
		}
		fd, err = unix.Openat2(at, rel, &unix.OpenHow{
			Flags:   flags,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		return err
	})
	return fd, err
}

// makeDirs makes the mailbox d.base with all missing directories on the way,
// and in it the directories named. It returns a descriptor of the last, open
// for reading. Others may do the same at the same time.
func (d *delivery) makeDirs(names ...string) (int, error) {
	at, rel := d.root, ""
	defer func() {
		if at != d.root {
			unix.Close(at)
		}
	}()
	depth := 0
	if d.base != "" {
		for name := range strings.SplitSeq(d.base, "/") {
			fd, err := d.makeDir(at, rel, name, depth, searchDir)
			if err != nil {
				return -1, err
			}
			if at != d.root {
				unix.Close(at)
			}
			at, rel = fd, path.Join(rel, name)
			depth++
		}
	}
	last := -1
	for _, name := range names {
		if last >= 0 {
			unix.Close(last)
		}
		var err error
		if last, err = d.makeDir(at, rel, name, depth, readDir); err != nil {
			return -1, err
		}
	}
	return last, nil
}

// makeDir opens the directory name in the directory at (depth components below
// the root), making it if it is missing.
func (d *delivery) makeDir(at int, rel, name string, depth int, flags uint64) (int, error) {
	abs := d.abs(path.Join(rel, name))
	fd, err := d.openDirAt(at, name, abs, flags)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	err = d.do(OpMkdir, abs, func() error { return unix.Mkdirat(at, name, d.w.dirMode()) })
	if errors.Is(err, unix.EEXIST) { // somebody was faster
		return d.openDirAt(at, name, abs, flags)
	}
	if err != nil {
		return -1, err
	}
	d.made = min(d.made, depth)
	if fd, err = d.openDirAt(at, name, abs, readDir); err != nil {
		return -1, err
	}
	if err := d.setMode(fd, abs, d.w.dirMode()); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setMode gives an open file of ours its mode where the umask (or a default
// ACL) made it another. A setgid bit inherited from the directory stays.
func (d *delivery) setMode(fd int, abs string, mode uint32) error {
	var st unix.Stat_t
	return d.statMode(fd, &st, abs, mode)
}

// statMode is setMode that keeps what it has seen of the file.
func (d *delivery) statMode(fd int, st *unix.Stat_t, abs string, mode uint32) error {
	return d.do(OpChmod, abs, func() error {
		if err := unix.Fstat(fd, st); err != nil || st.Mode&0o777 == mode {
			return err
		}
		return unix.Fchmod(fd, mode|st.Mode&0o7000)
	})
}

// settle makes sure that the way from the root to new/ is on disk. Directories
// made by this delivery are synced for certain. So are those that somebody else
// made a moment ago and may not have synced yet: every young mailbox is settled
// once.
func (d *delivery) settle() error {
	id, uid, born, err := identify(d.new)
	if err == nil {
		err = d.notForeign(uid)
	}
	if err != nil {
		return d.fail(OpOpen, d.abs(path.Join(d.base, "new")), err)
	}
	d.dev = id.dev
	if d.w.Durability != Full {
		return nil
	}
	old := !born.IsZero() && d.w.now().Sub(born) > settleAge
	if d.made == nothingMade && (old || d.w.settled.has(id)) {
		return nil
	}
	if err := d.syncParents(); err != nil {
		return err
	}
	d.w.settled.add(id)
	return nil
}

// notForeign refuses a directory of a third party: whoever has planted it there
// can read the names in it, and remove or exchange the mail. Root may own it.
func (d *delivery) notForeign(uid uint32) error {
	if d.t.Owner == nil || uid == d.t.Owner.UID || uid == 0 {
		return nil
	}
	return fmt.Errorf("%w: the directory belongs to uid %d", unix.EPERM, uid)
}

// syncParents syncs each directory from the root to the mailbox.
func (d *delivery) syncParents() error {
	rel := ""
	components := strings.Split(d.base, "/")
	if d.base == "" {
		components = nil
	}
	for depth := 0; depth <= len(components); depth++ {
		if depth > 0 {
			rel = path.Join(rel, components[depth-1])
		}
		fd, err := d.openDir(rel, readDir)
		if errors.Is(err, unix.EACCES) && depth < d.made {
			continue // not ours to read, and nothing of ours in it
		}
		if err != nil {
			return err
		}
		err = d.fsyncDir(OpSyncParent, d.abs(rel), fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// abs returns the path of something below the root, for people.
func (d *delivery) abs(rel string) string { return path.Join(d.t.Root, rel) }
