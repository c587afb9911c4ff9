package maildir

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxFolders is how many folders a mailbox may have before none is made any more:
// it may be the sender who chooses their names.
const maxFolders = 1000

// placeFolder opens new/ of the target's folder. If there is no such folder, and
// none is to be made, it leaves d.new alone. A directory without new/ is no folder:
// where the home itself is the Maildir, user+ssh must not put mail into ~/.ssh.
func (d *delivery) placeFolder() error {
	if !validFolder(d.t.Folder) {
		return nil
	}
	base := path.Join(d.t.Path, d.t.Folder)
	fd, err := d.openDir(path.Join(base, "new"), readDir)
	switch {
	case err == nil:
		d.base, d.new, d.res.Folder = base, fd, d.t.Folder
		return d.settle()
	case errors.Is(err, unix.ENOENT):
		if d.t.MakeFolder {
			return d.makeFolder(base)
		}
		return nil
	case errors.Is(err, unix.ENOTDIR):
		// A plain file with that name is no folder either, but a folder whose
		// new/ is none is broken and for the operator to see.
		if fd, ferr := d.openDir(base, searchDir); ferr == nil {
			unix.Close(fd)
		} else if errors.Is(ferr, unix.ENOTDIR) {
			return nil
		}
	}
	return err
}

// makeFolder makes a folder as the Maildir++ text has it, with the empty file
// maildirfolder in it, and subscribes to it. It makes none in a home that is the
// Maildir itself, where other programs keep directories whose names begin with a
// dot, and none in place of a directory that is not one of ours.
func (d *delivery) makeFolder(base string) error {
	if d.t.Path == "" {
		return nil
	}
	d.base = d.t.Path
	inbox, err := d.makeDirs("cur", "tmp", "new")
	if err != nil {
		return err
	}
	unix.Close(inbox)
	if ok, err := d.mayMake(base); !ok || err != nil {
		return err
	}
	d.base = base
	for _, name := range []string{"cur", "tmp"} {
		fd, err := d.makeDirs(name)
		if err != nil {
			return err
		}
		unix.Close(fd)
	}
	if err := d.createFile(path.Join(base, "maildirfolder")); err != nil {
		return err
	}
	if d.new, err = d.makeDirs("new"); err != nil { // last: with it, it is a folder
		return err
	}
	d.res.Folder = d.t.Folder
	if err := d.settle(); err != nil {
		return err
	}
	if err := d.subscribe(d.t.Folder[1:]); err != nil {
		d.res.Warning = err // it can be read all the same
	}
	return nil
}

// mayMake reports whether base can become a folder: there is nothing of that name,
// or what an earlier attempt has left, and not too many folders.
func (d *delivery) mayMake(base string) (bool, error) {
	fd, err := d.openDir(base, readDir)
	if err == nil {
		defer unix.Close(fd)
		other, err := d.seekIn(fd, base, func(name string) bool { return name != "cur" && name != "tmp" && name != "maildirfolder" })
		return other == "", err
	}
	if errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return false, err
	}
	box, err := d.openDir(d.t.Path, readDir)
	if err != nil {
		return false, err
	}
	defer unix.Close(box)
	folders := 0
	_, err = d.seekIn(box, d.t.Path, func(name string) bool {
		if name[0] == '.' {
			folders++
		}
		return false
	})
	return folders < maxFolders, err
}

// createFile makes an empty file below the root.
func (d *delivery) createFile(rel string) error {
	dir, err := d.openDir(path.Dir(rel), searchDir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd := -1
	err = d.do(OpCreate, d.abs(rel), func() (err error) {
		fd, err = unix.Openat(dir, path.Base(rel), unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, d.w.fileMode())
		return err
	})
	if err == nil {
		err = d.setMode(fd, d.abs(rel), d.w.fileMode())
		unix.Close(fd)
	}
	return err
}

const (
	subscriptionsV2  = "V\t2\n\n"
	maxSubscriptions = 1 << 20 // octets of the file
	lockPatience     = 20 * time.Millisecond
	lockTries        = 50
	lockStale        = 30 * time.Second // as Dovecot has it
)

// subscribe adds a folder to the file subscriptions of the mailbox, as Dovecot reads
// it: a name in a line, with dots between the levels, or with tabs if the file begins
// with "V 2". The new file is written under the name of the lock and renamed.
func (d *delivery) subscribe(name string) error {
	box, err := d.openDir(d.t.Path, searchDir)
	if err != nil {
		return err
	}
	defer unix.Close(box)
	rel := path.Join(d.t.Path, "subscriptions")
	lock, err := d.lockFile(box, "subscriptions.lock")
	if err != nil {
		return err
	}
	defer unix.Close(lock)
	err = d.addSubscription(box, lock, rel, name)
	if err != nil {
		unix.Unlinkat(box, "subscriptions.lock", 0)
	}
	return err
}

func (d *delivery) addSubscription(box, lock int, rel, name string) error {
	old, err := d.readFile(box, "subscriptions", rel)
	if err != nil {
		return err
	}
	if bytes.HasPrefix(old, []byte(subscriptionsV2)) {
		name = strings.ReplaceAll(name, ".", "\t")
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	if bytes.Contains(append([]byte("\n"), old...), []byte("\n"+name+"\n")) {
		unix.Unlinkat(box, "subscriptions.lock", 0)
		return nil
	}
	text := append(append(old, name...), '\n')
	abs := d.abs(rel)
	if err := d.do(OpWrite, abs, func() error { return writeFull(lock, text) }); err != nil {
		return err
	}
	if d.w.Durability != None {
		if err := d.do(OpSync, abs, func() error { return unix.Fsync(lock) }); err != nil {
			return err
		}
	}
	return d.do(OpRename, abs, func() error { return unix.Renameat(box, "subscriptions.lock", box, "subscriptions") })
}

// lockFile makes a lock file in the mailbox, the way Dovecot does.
func (d *delivery) lockFile(box int, name string) (fd int, err error) {
	abs := d.abs(path.Join(d.t.Path, name))
	for range lockTries {
		err = d.do(OpCreate, abs, func() (err error) {
			fd, err = unix.Openat(box, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, d.w.fileMode())
			return err
		})
		if err == nil {
			if err = d.setMode(fd, abs, d.w.fileMode()); err != nil {
				unix.Close(fd)
			}
			return fd, err
		}
		if !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		var st unix.Stat_t
		if unix.Fstatat(box, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && d.w.now().Sub(time.Unix(st.Mtim.Unix())) > lockStale {
			unix.Unlinkat(box, name, 0)
			continue
		}
		time.Sleep(lockPatience)
	}
	return -1, err
}

// readFile reads a small file in an open directory; one that is missing is empty.
func (d *delivery) readFile(dir int, name, rel string) ([]byte, error) {
	fd := -1
	err := d.do(OpOpen, d.abs(rel), func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var text []byte
	buf := make([]byte, 8<<10)
	for {
		n := 0
		err := d.do(OpRead, d.abs(rel), func() (err error) { n, err = unix.Read(fd, buf); return err })
		if err != nil || n == 0 {
			return text, err
		}
		if text = append(text, buf[:n]...); len(text) > maxSubscriptions {
			return nil, d.fail(OpRead, d.abs(rel), fmt.Errorf("file has more than %d octets", maxSubscriptions))
		}
	}
}

func writeFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// validFlags reports whether f may stand behind ":2," in a file name: letters of the
// Maildir text, in ASCII order, each once.
func validFlags(f string) bool {
	for i := range len(f) {
		if strings.IndexByte("DFPRST", f[i]) < 0 || i > 0 && f[i] <= f[i-1] {
			return false
		}
	}
	return true
}

// enterCur makes cur/ the place of a message with flags, which only a name there can
// have.
func (d *delivery) enterCur() error {
	rel := path.Join(d.base, "cur")
	fd, err := d.openDir(rel, readDir)
	if errors.Is(err, unix.ENOENT) {
		fd, err = d.makeDirs("cur")
	}
	if err != nil {
		return err
	}
	closeFD(&d.new)
	d.new, d.sub = fd, "cur"
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		d.dev = device{unix.Major(st.Dev), unix.Minor(st.Dev)} // cur/ may be mounted
		err = d.notForeign(st.Uid)
	}
	if err != nil {
		return d.fail(OpOpen, d.abs(rel), err)
	}
	return nil
}
