// Command inject has another process make one system call and prints its error, to
// show what the kernel forbids that very process: the confinement of a daemon that
// has closed itself off cannot be joined from outside, and a call that it would never
// make by itself cannot be asked for.
//
//	inject PID open|read|fifo PATH
//
// open makes or opens a file for writing, read opens it for reading, fifo makes a FIFO.
// It prints "ok", or the name of the error. It works as gdb's "call" does, on the main
// thread, and wants root.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: inject PID open|read|fifo PATH")
		os.Exit(64)
	}
	pid, err := strconv.Atoi(os.Args[1])
	var errno syscall.Errno
	if err == nil {
		errno, err = inject(pid, os.Args[2], os.Args[3])
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "inject:", err)
		os.Exit(1)
	case errno != 0:
		fmt.Println(unix.ErrnoName(errno))
	default:
		fmt.Println("ok")
	}
}

// attempts is how often a thread may be met outside of a system call.
const attempts = 100

func inject(pid int, call, path string) (syscall.Errno, error) {
	runtime.LockOSThread() // who traces is a thread
	for range attempts {
		errno, err := once(pid, call, path)
		if err != errElsewhere {
			return errno, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0, errElsewhere
}

// errElsewhere: the thread was not in a system call, so that there is no instruction
// for one at hand.
var errElsewhere = errors.New("the thread is never in a system call")

func once(pid int, call, path string) (errno syscall.Errno, err error) {
	if err := syscall.PtraceAttach(pid); err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	defer func() {
		if e := syscall.PtraceDetach(pid); err == nil && e != nil {
			err = fmt.Errorf("detach: %w", e)
		}
	}()
	if err := stopped(pid); err != nil {
		return 0, err
	}
	var saved syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &saved); err != nil {
		return 0, err
	}
	var code [8]byte
	if _, err := syscall.PtracePeekText(pid, uintptr(saved.Rip-2), code[:]); err != nil {
		return 0, err
	}
	if code[0] != 0x0f || code[1] != 0x05 { // syscall
		return 0, errElsewhere
	}

	// The path goes on the stack, below what the ABI lets a leaf use.
	text := append([]byte(path), 0)
	at := uintptr((saved.Rsp - 256 - uint64(len(text))) &^ 15)
	under := make([]byte, len(text))
	if _, err := syscall.PtracePeekData(pid, at, under); err != nil {
		return 0, err
	}
	if _, err := syscall.PtracePokeData(pid, at, text); err != nil {
		return 0, err
	}
	result, err := step(pid, saved, call, at)
	if err == nil && result >= 0 && (call == "open" || call == "read") {
		_, err = run(pid, saved, unix.SYS_CLOSE, uint64(result))
	}
	if _, e := syscall.PtracePokeData(pid, at, under); err == nil {
		err = e
	}
	if e := syscall.PtraceSetRegs(pid, &saved); err == nil {
		err = e // and the kernel takes the interrupted call up again
	}
	if result < 0 {
		errno = syscall.Errno(-result)
	}
	return errno, err
}

func step(pid int, regs syscall.PtraceRegs, call string, path uintptr) (int64, error) {
	here, p := int64(unix.AT_FDCWD), uint64(path)
	switch call {
	case "open":
		return run(pid, regs, unix.SYS_OPENAT, uint64(here), p, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	case "read":
		return run(pid, regs, unix.SYS_OPENAT, uint64(here), p, unix.O_RDONLY|unix.O_CLOEXEC)
	case "fifo":
		return run(pid, regs, unix.SYS_MKNODAT, uint64(here), p, unix.S_IFIFO|0o600)
	}
	return 0, fmt.Errorf("no call %q", call)
}

// run makes one system call and returns what the kernel does: a negative errno, or
// the result.
func run(pid int, regs syscall.PtraceRegs, number uint64, args ...uint64) (int64, error) {
	regs.Rip -= 2
	regs.Rax = number
	regs.Orig_rax = ^uint64(0) // nothing is to be taken up again
	for i, to := range []*uint64{&regs.Rdi, &regs.Rsi, &regs.Rdx, &regs.R10} {
		*to = 0
		if i < len(args) {
			*to = args[i]
		}
	}
	if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSingleStep(pid); err != nil {
		return 0, err
	}
	if err := stopped(pid); err != nil {
		return 0, err
	}
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return 0, err
	}
	return int64(regs.Rax), nil
}

func stopped(pid int) error {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, syscall.WALL, nil); err != nil {
		return err
	}
	if !ws.Stopped() {
		return fmt.Errorf("process %d has ended", pid)
	}
	return nil
}
