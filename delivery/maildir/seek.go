package maildir

import (
	"errors"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errFound ends a copy that is in its mailbox already.
var errFound = errors.New("copy was delivered before")

// validToken reports whether t may be part of a file name: up to 32 hexadecimal
// digits in lower case.
func validToken(t string) bool {
	return len(t) <= 32 && strings.Trim(t, "0123456789abcdef") == ""
}

// seek looks for a copy of an earlier call with the target's token, where a
// delivery puts it and where a reader does. What is found is brought to disk, as
// far as that call may not have come, and ends this copy with errFound. One that
// is not as long as its name says does not count: a second copy is better than
// half of one.
func (d *delivery) seek() error {
	mark := "R" + d.t.Token + "."
	hasToken := func(name string) bool { return strings.Contains(name, mark) }
	for range seekTries {
		moved := false
		for _, sub := range []string{"new", "cur"} {
			name, err := d.findCopy(path.Join(d.base, sub), hasToken)
			if errors.Is(err, errMoved) {
				moved = true
				continue
			}
			if err != nil {
				return err
			}
			if name != "" {
				d.res.File, d.res.Found = d.abs(path.Join(d.base, sub, name)), true
				return errFound
			}
		}
		if !moved {
			return nil
		}
	}
	return nil
}

// seekTries is how often a copy is looked for that a reader moves meanwhile.
const seekTries = 3

// errMoved: the file lost its name after it was seen.
var errMoved = errors.New("moved")

// findCopy returns the name of the copy in one directory, or "". The copy is on disk
// then.
func (d *delivery) findCopy(rel string, wanted func(name string) bool) (string, error) {
	fd, err := d.openDir(rel, readDir)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	name, err := d.seekIn(fd, rel, wanted)
	if err != nil || name == "" || d.w.Durability == None {
		return name, err
	}
	whole, err := d.syncFound(fd, rel, name)
	if err != nil || !whole {
		return "", err
	}
	if d.w.Durability == Full {
		err = d.fsyncDir(OpSyncDir, d.abs(rel), fd)
	}
	return name, err
}

// syncFound brings the content of a copy to disk: it may have got its name before
// that. It reports whether it is whole.
func (d *delivery) syncFound(dir int, rel, name string) (whole bool, err error) {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	abs := d.abs(path.Join(rel, name))
	fd, err := d.openDirAt(dir, name, abs, unix.O_WRONLY|flags)
	if errors.Is(err, unix.EACCES) {
		fd, err = d.openDirAt(dir, name, abs, unix.O_RDONLY|flags) // its mode may be 0440
	}
	if errors.Is(err, unix.ENOENT) {
		return false, errMoved
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, d.fail(OpSeek, abs, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !strings.Contains(name, ",S="+strconv.FormatInt(st.Size, 10)+",") {
		return false, nil
	}
	return true, d.do(OpSyncNamed, abs, func() error { return unix.Fsync(fd) })
}

// seekIn returns the first name in an open directory that is wanted, or "".
func (d *delivery) seekIn(fd int, rel string, wanted func(name string) bool) (string, error) {
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n := 0
		err := d.do(OpSeek, d.abs(rel), func() (err error) {
			n, err = unix.Getdents(fd, buf)
			return err
		})
		if err != nil || n == 0 {
			return "", err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if wanted(name) {
				return name, nil
			}
		}
	}
}
