package powercut

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// order is a way to bring one file to disk. Those that are not strict exist to be
// caught, or to be measured and tried.
type order int

const (
	strict    order = iota // sync, name, sync the directory
	again                  // sync, name, sync file and directory
	byTmp                  // the strict order by way of tmp/
	oneCommit              // begin write-back and wait for it, name, sync file and directory
	hinted                 // begin write-back, name, sync file and directory
	nameFirst              // name, sync file and directory
	fileOnly               // sync, name
	unsynced               // name
	written                // begin write-back and wait for it, name
	dirOnly                // the same, sync the directory
	shared                 // written for each copy of a message, dirOnly for the last
	early                  // dirOnly for the first copy, written for the others
)

func (o order) String() string {
	return [...]string{"strict", "sync again", "by tmp", "one commit", "hinted", "name first", "file only", "unsynced",
		"written", "directory only", "shared commit", "early commit"}[o]
}

// writer writes messages into Maildirs as lmtpd might.
type writer struct {
	root   string
	order  order
	serial atomic.Int64
}

// deliver writes copies, one after the other. The Maildirs must be there.
func (w *writer) deliver(body []byte, users []int) error {
	for i, user := range users {
		o := w.order
		switch {
		case o == shared && i == len(users)-1, o == early && i == 0:
			o = dirOnly
		case o == shared, o == early:
			o = written
		}
		if err := w.copy(body, user, o); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) copy(body []byte, user int, o order) error {
	box := filepath.Join(w.root, userName(user), "Maildir")
	dir, err := os.OpenFile(filepath.Join(box, "new"), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	at := int(dir.Fd())
	head := header(user)
	octets := len(head) + len(body)
	lines := bytes.Count(body, []byte("\n")) + 2
	name := fmt.Sprintf("1.M1P1Q%d.mx,S=%d,W=%d", w.serial.Add(1), octets, octets+lines)
	tmp := filepath.Join(box, "tmp", name)
	var fd int
	if o == byTmp {
		fd, err = unix.Open(tmp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	} else {
		fd, err = unix.Openat(at, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if n, err := unix.Writev(fd, [][]byte{[]byte(head), body}); err != nil || n != len(head)+len(body) {
		return fmt.Errorf("%d octets written: %w", n, err)
	}

	sync := func() error { return unix.Fsync(fd) }
	syncDir := func() error { return unix.Fsync(at) }
	link := func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), at, name, unix.AT_SYMLINK_FOLLOW)
	}
	rename := func() error { return unix.Renameat2(unix.AT_FDCWD, tmp, at, name, unix.RENAME_NOREPLACE) }
	writeBack := func(flags int) func() error {
		return func() error { return unix.SyncFileRange(fd, 0, 0, flags) }
	}
	const begin, wait = unix.SYNC_FILE_RANGE_WRITE, unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for _, step := range [][]func() error{
		strict:    {sync, link, syncDir},
		again:     {sync, link, sync, syncDir},
		byTmp:     {sync, rename, syncDir},
		oneCommit: {writeBack(begin | wait), link, sync, syncDir},
		hinted:    {writeBack(begin), link, sync, syncDir},
		nameFirst: {link, sync, syncDir},
		fileOnly:  {sync, link},
		unsynced:  {link},
		written:   {writeBack(begin | wait), link},
		dirOnly:   {writeBack(begin | wait), link, syncDir},
	}[o] {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
