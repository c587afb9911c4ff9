package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// arrivals sees messages come into mailboxes by the names that appear in new/,
// however they are put there. Where a queue lies between, a reply says nothing.
type arrivals struct {
	file *os.File
	buf  []byte
}

func watchArrivals(s *site) (*arrivals, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	a := &arrivals{os.NewFile(uintptr(fd), "inotify"), make([]byte, 64<<10)}
	for i := range users {
		_, err := syscall.InotifyAddWatch(fd, filepath.Join(s.maildir(i), "new"), syscall.IN_CREATE|syscall.IN_MOVED_TO)
		if err != nil {
			a.close()
			return nil, os.NewSyscallError("inotify_add_watch", err)
		}
	}
	return a, nil
}

func (a *arrivals) close() { a.file.Close() }

// await returns when this many more have come.
func (a *arrivals) await(n int) error {
	if err := a.file.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for n > 0 {
		k, err := a.file.Read(a.buf)
		if err != nil {
			return fmt.Errorf("%d messages have not arrived: %w", n, err)
		}
		for at := 0; at < k; n-- { // struct inotify_event: watch, mask, cookie, length of the name
			if binary.NativeEndian.Uint32(a.buf[at+4:])&syscall.IN_Q_OVERFLOW != 0 {
				return errors.New("more arrivals at once than the kernel could count")
			}
			at += syscall.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(a.buf[at+12:]))
		}
	}
	return nil
}
