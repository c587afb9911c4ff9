package maildir

import (
	"errors"
	"path"
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
// far as that call may not have come, and ends this copy with errFound.
func (d *delivery) seek() error {
	mark := "R" + d.t.Token + "."
	hasToken := func(name string) bool { return strings.Contains(name, mark) }
	for _, sub := range []string{"new", "cur"} {
		rel := path.Join(d.base, sub)
		fd, err := d.openDir(rel, readDir)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		name, err := d.seekIn(fd, rel, hasToken)
		if err == nil && name != "" && d.w.Durability == Full {
			err = d.do(OpSyncDir, d.abs(rel), func() error { return unix.Fsync(fd) })
		}
		unix.Close(fd)
		if err != nil {
			return err
		}
		if name != "" {
			d.res.File, d.res.Found = d.abs(path.Join(rel, name)), true
			return errFound
		}
	}
	return nil
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
