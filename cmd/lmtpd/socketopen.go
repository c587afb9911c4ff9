package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// openSocket opens the address of lc. Errors are *valueError.
func openSocket(lc listenConfig) (*socket, error) {
	if lc.Address.Network == "unix" {
		return openUnix(lc)
	}
	ln, err := net.Listen("tcp", lc.Address.Address)
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &valueError{lc.Address.Address + " is in use by another process", "stop that process (ss -ltnp names it), or use another port"}
	case errors.Is(err, syscall.EACCES):
		return nil, &valueError{"no permission to listen on " + lc.Address.Address, "use a port from 1024 on, or let systemd open the socket (lmtpd.socket)"}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, &valueError{lc.Address.Address + " is not an address of this machine", "use one of its own, such as 127.0.0.1"}
	case errors.As(err, &dns):
		return nil, &valueError{"the host of " + lc.Address.Address + " is not known: " + dns.Err, "write an IP address"}
	case err != nil:
		return nil, &valueError{"cannot listen on " + lc.Address.Address + ": " + err.Error(), "use another address"}
	}
	return newSocket("", lc, ln.(*net.TCPListener)), nil
}

// openUnix binds a Unix socket and gives it owner and mode.
func openUnix(lc listenConfig) (*socket, error) {
	path := lc.Address.Address
	if err := clearPath(path); err != nil {
		return nil, err
	}
	network := "unix"
	if lc.Protocol == protoWriter {
		network = "unixpacket"
	}
	ln, err := bindPrivate(network, path)
	if err != nil {
		return nil, unixProblem(path, err)
	}
	s := newSocket("", lc, ln)
	if s.file, err = os.Lstat(path); err != nil {
		ln.Close()
		return nil, unixProblem(path, err)
	}
	if err := s.setAccess(lc); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// bindPrivate binds a socket that only its owner can connect to until the mode is set.
// Linux gives the new file the mode that the unbound socket has (unix_bind_bsd in
// net/unix/af_unix.c). The umask, which belongs to the whole process, is not touched,
// and the socket has its final name from the start, for getsockname(2) and ss(8).
func bindPrivate(network, path string) (*net.UnixListener, error) {
	private := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var chmod error
		if err := raw.Control(func(fd uintptr) { chmod = syscall.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return chmod
	}}
	ln, err := private.Listen(context.Background(), network, path)
	if err != nil {
		return nil, err
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // socket.close looks first whether the file is still ours
	return u, nil
}

// clearPath removes a socket at path that nobody serves any more, and nothing else.
func clearPath(path string) error {
	old, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // or its directory is missing: bind will tell
	case err != nil:
		return unixProblem(path, err)
	case old.Mode().Type() != fs.ModeSocket:
		return notASocket(path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		defer conn.Close()
		return &valueError{path + " is served by a live process" + peerName(conn.(*net.UnixConn)), "stop it, or use another address"}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		// EAGAIN is a full backlog, EPROTOTYPE another type of socket: somebody is there.
		return &valueError{fmt.Sprintf("%s may be served by a live process (%v)", path, errnoOf(err)), "stop it or remove the socket, or use another address"}
	}
	// Another process may do the same at the same time, and its new socket must not be
	// removed. So take the file away under another name, and look what it was.
	aside := fmt.Sprintf("%s.stale.%d", path, os.Getpid())
	if err := os.Rename(path, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return &valueError{fmt.Sprintf("the stale socket %s cannot be removed: %v", path, errnoOf(err)), "remove it by hand, or let uid " + strconv.Itoa(os.Geteuid()) + " write to its directory"}
	}
	defer os.Remove(aside)
	if moved, err := os.Lstat(aside); err != nil || !os.SameFile(old, moved) {
		_ = os.Link(aside, path)
		return &valueError{path + " has just been opened by another process", "stop it, or use another address"}
	}
	return nil
}

// peerName is " (process 42, name)" for the process that listens, if the kernel tells.
func peerName(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *syscall.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, _ = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil || cred == nil || cred.Pid <= 0 {
		return ""
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid))
	if n := len(comm); n > 1 && n < 64 {
		return fmt.Sprintf(" (process %d, %s)", cred.Pid, comm[:n-1])
	}
	return fmt.Sprintf(" (process %d)", cred.Pid)
}

// unixProblem says what a failed bind means.
func unixProblem(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missingDirectory(dir)
	case errors.Is(err, syscall.ENOTDIR):
		return &valueError{dir + " is not a directory", "use a path in a directory"}
	case errors.Is(err, fs.ErrPermission):
		return &valueError{fmt.Sprintf("uid %d may not create a socket in %s", os.Geteuid(), dir), "let it write to that directory, or let systemd open the socket (lmtpd.socket)"}
	case errors.Is(err, syscall.EADDRINUSE):
		return &valueError{path + " has just been opened by another process", "stop it, or use another address"}
	case errors.Is(err, syscall.EROFS):
		return &valueError{dir + " is on a read-only file system", "use a directory below /run"}
	}
	return &valueError{fmt.Sprintf("cannot create the socket %s: %v", path, errnoOf(err)), "use another address"}
}

func notASocket(path string) error {
	return &valueError{path + " is in the way: it is not a socket", "move it elsewhere, or use another address"}
}

func missingDirectory(dir string) error {
	return &valueError{"the directory " + dir + " does not exist", "create it (install -d " + dir + "; with systemd, RuntimeDirectory= or tmpfiles.d), or use another path"}
}

func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
