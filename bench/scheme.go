package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// scheme writes one message to the mailboxes of some users by bare system calls,
// as a program that does nothing else would: what the file system allows. It
// sees only one message at a time; several run at once.
type scheme struct {
	name  string
	store func(w *schemeWriter, content [][]byte, to []int) error
}

// The schemes. All have file and name on disk when they return.
var (
	strict = scheme{"file system, strict", (*schemeWriter).strict}
	phases = scheme{"file system, copies in phases", (*schemeWriter).phases}
	links  = scheme{"file system, links", (*schemeWriter).links}
	// commit is what can be had where the order of writes alone, without a sync
	// between them, keeps a name from becoming durable before its content, and a sync
	// brings everything to disk that came before it.
	commit = scheme{"file system, one commit", (*schemeWriter).commit}
)

// schemeWriter is one session: a sender that needs no server.
type schemeWriter struct {
	scheme  scheme
	site    *site
	message *message
	id      uint64 // of the message at hand
	serial  int
	buf     []byte
}

func (w *schemeWriter) send(id uint64, to []int, taken func(i int)) (refused int, err error) {
	w.id = id
	if err := w.scheme.store(w, w.message.pieces(id, &w.buf), to); err != nil {
		return 0, err
	}
	for i := range to {
		taken(i)
	}
	return 0, nil
}

func (w *schemeWriter) quit() error { return nil }

func (w *schemeWriter) newName() string {
	w.serial++
	return fmt.Sprintf("%x.%d", w.id, w.serial)
}

// strict: create in tmp/, write, sync the file, rename, sync new/; one copy after
// another.
func (w *schemeWriter) strict(content [][]byte, to []int) error {
	for _, user := range to {
		box, name := w.site.maildir(user), w.newName()
		fd, err := w.create(box, name, content)
		if err != nil {
			return err
		}
		err = syscall.Fsync(fd)
		syscall.Close(fd)
		if err != nil {
			return os.NewSyscallError("fsync", err)
		}
		if err := syscall.Rename(filepath.Join(box, "tmp", name), filepath.Join(box, "new", name)); err != nil {
			return os.NewSyscallError("rename", err)
		}
		if err := syncDir(filepath.Join(box, "new")); err != nil {
			return err
		}
	}
	return nil
}

// phases: write all and start write-back, sync all, name all, sync all directories.
func (w *schemeWriter) phases(content [][]byte, to []int) error {
	fds, names, err := w.createAll(content, to)
	defer closeAll(fds)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if err := syscall.Fsync(fd); err != nil {
			return os.NewSyscallError("fsync", err)
		}
	}
	if err := w.renameAll(names, to); err != nil {
		return err
	}
	return w.syncAll(to)
}

// links: write and sync one file, link it into each mailbox, sync all directories.
func (w *schemeWriter) links(content [][]byte, to []int) error {
	first, name := w.site.maildir(to[0]), w.newName()
	fd, err := w.create(first, name, content)
	if err != nil {
		return err
	}
	err = syscall.Fsync(fd)
	syscall.Close(fd)
	if err != nil {
		return os.NewSyscallError("fsync", err)
	}
	for _, user := range to {
		err := syscall.Link(filepath.Join(first, "tmp", name), filepath.Join(w.site.maildir(user), "new", name))
		if err != nil {
			return os.NewSyscallError("link", err)
		}
	}
	if err := syscall.Unlink(filepath.Join(first, "tmp", name)); err != nil {
		return os.NewSyscallError("unlink", err)
	}
	return w.syncAll(to)
}

// commit: write all, wait until their content is written back, rename all, sync new/ of
// the last. On ext4 that brings to disk what is in the journal of the others too.
func (w *schemeWriter) commit(content [][]byte, to []int) error {
	const waitWriteWait = 1 | 2 | 4 // SYNC_FILE_RANGE_WAIT_BEFORE, WRITE, WAIT_AFTER
	fds, names, err := w.createAll(content, to)
	defer closeAll(fds)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		if err := syscall.SyncFileRange(fd, 0, 0, waitWriteWait); err != nil {
			return os.NewSyscallError("sync_file_range", err)
		}
	}
	if err := w.renameAll(names, to); err != nil {
		return err
	}
	return w.syncAll(to[len(to)-1:])
}

// createAll makes a file for each user and begins its write-back. The caller closes
// them, also after an error.
func (w *schemeWriter) createAll(content [][]byte, to []int) (fds []int, names []string, err error) {
	const writeBack = 2 // SYNC_FILE_RANGE_WRITE
	for _, user := range to {
		name := w.newName()
		fd, err := w.create(w.site.maildir(user), name, content)
		if err != nil {
			return fds, names, err
		}
		fds, names = append(fds, fd), append(names, name)
		if err := syscall.SyncFileRange(fd, 0, 0, writeBack); err != nil {
			return fds, names, os.NewSyscallError("sync_file_range", err)
		}
	}
	return fds, names, nil
}

func (w *schemeWriter) renameAll(names []string, to []int) error {
	for i, user := range to {
		box := w.site.maildir(user)
		if err := syscall.Rename(filepath.Join(box, "tmp", names[i]), filepath.Join(box, "new", names[i])); err != nil {
			return os.NewSyscallError("rename", err)
		}
	}
	return nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		syscall.Close(fd)
	}
}

func (w *schemeWriter) create(box, name string, content [][]byte) (int, error) {
	fd, err := syscall.Open(filepath.Join(box, "tmp", name), syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, os.NewSyscallError("open", err)
	}
	for _, piece := range content {
		for len(piece) > 0 {
			n, err := syscall.Write(fd, piece)
			if err != nil {
				syscall.Close(fd)
				return -1, os.NewSyscallError("write", err)
			}
			piece = piece[n:]
		}
	}
	return fd, nil
}

func (w *schemeWriter) syncAll(to []int) error {
	for _, user := range to {
		if err := syncDir(filepath.Join(w.site.maildir(user), "new")); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	fd, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer syscall.Close(fd)
	return os.NewSyscallError("fsync", syscall.Fsync(fd))
}
