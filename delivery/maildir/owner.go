package maildir

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// as runs f with the owner's credentials for file access and returns when f is
// done. An error means that f was not run.
func (w *Writer) as(o *Owner, f func()) error {
	if o == nil {
		f()
		return nil
	}
	result := make(chan error, 1)
	go func() {
		var err error
		defer func() { result <- err }()
		_, err = w.asHere(o, f)
	}()
	return <-result
}

// asHere is as in the calling goroutine. Where lost is true that has to end soon, and
// must not touch files otherwise than by as and asHere.
//
// The kernel keeps credentials per thread; the fs ones and the groups are all
// that file access looks at, and unlike the effective uid they leave the
// process out of reach of the user's signals. The calls are raw because the
// wrappers of Go and libc change every thread. The goroutine is locked to its
// thread meanwhile, and stays so if the old credentials do not come back: when it
// ends, the runtime ends the thread with it, or parks it for ever if it is the first
// of the process. (The runtime starts new threads from a clean one while a goroutine
// is locked.)
func (w *Writer) asHere(o *Owner, f func()) (lost bool, err error) {
	if o == nil {
		f()
		return false, nil
	}
	own, err := w.self.get()
	if err != nil {
		return false, err
	}
	// Nothing is needed, and nothing to be forbidden, if this is who we are.
	same := own.euid == o.UID && own.egid == o.GID
	if err := w.checkOwner(o, same); err != nil {
		return false, err
	}
	if same {
		f()
		return false, nil
	}
	runtime.LockOSThread()
	groups := !slices.Equal(o.Groups, own.fs.groups)
	if err = w.become(o, groups); err == nil {
		f()
	}
	if w.restore(own.fs, groups) != nil {
		return true, err
	}
	runtime.UnlockOSThread()
	return false, err
}

// checkOwner refuses accounts that mail is never written as: root, root's
// group, and system accounts below MinUID unless the process is that account.
func (w *Writer) checkOwner(o *Owner, same bool) error {
	minimum := w.MinUID
	if minimum == 0 {
		minimum = DefaultMinUID
	}
	const nobody = ^uint32(0) // (uid_t)-1 means "no change" to the kernel
	switch {
	case o.UID == 0, o.UID == nobody:
		return fmt.Errorf("%w: uid %d", ErrOwner, o.UID)
	case o.GID == 0, o.GID == nobody:
		return fmt.Errorf("%w: gid %d", ErrOwner, o.GID)
	case slices.Contains(o.Groups, 0), slices.Contains(o.Groups, nobody):
		return fmt.Errorf("%w: root's group among the supplementary groups", ErrOwner)
	case o.UID < minimum && !same:
		return fmt.Errorf("%w: uid %d is below the minimum of %d", ErrOwner, o.UID, minimum)
	}
	return nil
}

// credentials of one thread, as far as file access looks at them.
type credentials struct {
	uid, gid int
	groups   []uint32
}

// self is what the process is, and so each of its threads that is not between become
// and restore. It is read when it is needed first.
type self struct {
	once       sync.Once
	euid, egid uint32
	fs         credentials
	err        error
}

func (s *self) get() (*self, error) {
	s.once.Do(func() {
		s.euid, s.egid = uint32(os.Geteuid()), uint32(os.Getegid())
		s.fs = credentials{uid: fsuid(-1), gid: fsgid(-1)}
		groups, err := unix.Getgroups()
		s.err = os.NewSyscallError("getgroups", err)
		for _, g := range groups {
			s.fs.groups = append(s.fs.groups, uint32(g))
		}
	})
	return s, s.err
}

// become switches the calling thread. Groups and gid go first: whoever has the
// uid of a user must not have anybody else's groups for an instant.
func (w *Writer) become(o *Owner, groups bool) error {
	if w.Before != nil {
		if err := w.Before(OpBecome, fmt.Sprint(o.UID)); err != nil {
			return err
		}
	}
	return set(credentials{int(o.UID), int(o.GID), o.Groups}, groups, false)
}

// restore gives the calling thread its credentials back.
func (w *Writer) restore(c credentials, groups bool) error {
	if w.Before != nil {
		if err := w.Before(OpRestore, fmt.Sprint(c.uid)); err != nil {
			return err
		}
	}
	return set(c, groups, true)
}

// set leaves the groups as they are if told so.
func set(c credentials, groups, uidFirst bool) error {
	if uidFirst {
		fsuid(c.uid)
	}
	if groups {
		if err := setgroups(c.groups); err != nil {
			return os.NewSyscallError("setgroups", err)
		}
	}
	fsgid(c.gid)
	if !uidFirst {
		fsuid(c.uid)
	}
	// setfsuid and setfsgid have no way to report an error but this.
	if fsgid(-1) != c.gid {
		return os.NewSyscallError("setfsgid", unix.EPERM)
	}
	if fsuid(-1) != c.uid {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return nil
}

// fsuid and fsgid set an id of the calling thread and return the former one;
// -1 changes nothing.
func fsuid(id int) int {
	old, _ := unix.SetfsuidRetUid(id)
	return old
}

func fsgid(id int) int {
	old, _ := unix.SetfsgidRetGid(id)
	return old
}

// setgroups is for the calling thread alone; syscall.Setgroups is for all.
func setgroups(groups []uint32) error {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(sysSetgroups, uintptr(len(groups)), uintptr(p), 0); errno != 0 {
		return errno
	}
	return nil
}
