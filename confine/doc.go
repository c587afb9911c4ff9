// Package confine takes from the process, for good, what it does not need: the way
// to more privileges (no_new_privs), being looked into (core dumps, ptrace, /proc),
// capabilities, and files (Landlock). What service managers do better, such as
// seccomp and name spaces, is left to them; so is the network, where Landlock knows
// TCP and nothing else, not even MPTCP.
//
// It is a second line: a kernel that does not know a means is no reason not to run.
// Apply does what it can and reports the rest.
//
// Capabilities, no_new_privs and Landlock are properties of threads. They are set for
// all of them by syscall.AllThreadsSyscall, which a program with cgo does not have.
package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Plan is what is left to the process.
type Plan struct {
	Capabilities []Capability // kept if it has them; none for its children
	Paths        []Path       // nil: files are not confined
}

// Report says what Apply has done.
type Report struct {
	Capabilities []Capability // that the process still has
	Landlock     int          // version of its interface that was used; 0: it was not
	Missed       []error      // what could not be done, and why
}

// ErrCgo: the program has cgo, and nothing was done that concerns threads.
var ErrCgo = errors.New("a program with cgo cannot be confined; build with CGO_ENABLED=0")

// Apply confines the process, all its threads, and the children it will have.
// It cannot be undone, and a second call can only take more.
func (p Plan) Apply() Report {
	var r Report
	miss := func(what string, err error) {
		if err != nil {
			r.Missed = append(r.Missed, fmt.Errorf("%s: %w", what, err))
		}
	}
	miss("dumpable", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	err := everywhere(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	if errors.Is(err, ErrCgo) {
		r.Missed = append(r.Missed, err)
		return r
	}
	miss("no_new_privs", err)
	if p.Paths != nil {
		// Before the capabilities go: they may be what opens a path.
		r.Landlock, err = p.restrict()
		miss("landlock", err)
	}
	miss("capabilities", keep(p.Capabilities))
	if r.Capabilities, err = held(); err != nil {
		miss("capabilities", err)
	}
	return r
}

// everywhere makes a system call on each thread. Arguments may be pointers.
//
//go:uintptrescapes
func everywhere(trap, a1, a2, a3 uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return ErrCgo
	}
	return os.NewSyscallError("all threads", errno)
}
