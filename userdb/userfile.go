package userdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// stamp tells two versions of a file apart. The change time is in it because the modification time can be set back.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // nanoseconds
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino, s.ctime = uint64(st.Dev), st.Ino, st.Ctim.Nano()
	}
	return s
}

// errChanging: the file was written to while it was read. It is worth another try.
var errChanging = errors.New("it changed while it was read")

func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func statUserFile(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, fileProblem(path, err)
	}
	return stampOf(info), nil
}

// fileProblem words an error of the operating system with its remedy. It stays temporary: it is no *FileError, so the
// file is tried again at the next look.
func fileProblem(path string, err error) error {
	remedy := "repair the file"
	switch {
	case isGone(err):
		remedy = "create the file or correct the path"
	case errors.Is(err, fs.ErrPermission):
		remedy = fmt.Sprintf("let uid %d read the file and enter the directories above it", os.Geteuid())
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err // the path is in the message already
	}
	return fmt.Errorf("%s: %w; %s", path, err, remedy)
}

// readUserFile reads and parses the file. The stamp is that of the version it read, or as much of it as is known.
func readUserFile(path string, maxSize int64, fold bool) (*userTable, stamp, error) {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		st, _ := statUserFile(path)
		return nil, st, fileProblem(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stamp{}, fileProblem(path, err)
	}
	st := stampOf(info)
	if !info.Mode().IsRegular() {
		kind := "not a regular file"
		if info.IsDir() {
			kind = "a directory"
		}
		return nil, st, &FileError{File: path, What: "it is " + kind, Remedy: "name a file of users"}
	}
	if st.size > maxSize {
		return nil, st, &FileError{File: path, What: fmt.Sprintf("it has %d octets, at most %d are read", st.size, maxSize),
			Remedy: "split it or use a database"}
	}
	data := make([]byte, st.size+1) // one more than it should have: to notice that it grows
	n, err := io.ReadFull(f, data)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, st, fileProblem(path, err)
	}
	if err == nil || n != int(st.size) {
		return nil, st, fmt.Errorf("%s: %w; try again", path, errChanging)
	}
	if info, err = f.Stat(); err != nil {
		return nil, st, fileProblem(path, err)
	}
	if stampOf(info) != st {
		return nil, st, fmt.Errorf("%s: %w; try again", path, errChanging)
	}
	t, err := parsePasswd(path, data[:n], fold)
	return t, st, err
}
