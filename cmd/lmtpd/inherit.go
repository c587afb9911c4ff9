package main

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// inheritedSocket is a listening socket that systemd passed; name is its
// FileDescriptorName.
type inheritedSocket struct {
	name     string
	listener netListener
}

// socketsFromSystemd takes the sockets that systemd passed to this process, if any,
// and removes their traces from the environment. Call it once.
//
// activation.Listeners would drop what is not a listener without a word; here each
// descriptor that cannot be served is an error.
func socketsFromSystemd() ([]inheritedSocket, error) {
	return inheritSockets(activation.Files(true))
}

// inheritSockets takes the files over: each is closed, or lives on in a listener.
func inheritSockets(files []*os.File) ([]inheritedSocket, error) {
	var sockets []inheritedSocket
	var first error
	for _, f := range files {
		ln, err := listenerOf(f)
		f.Close() // net.FileListener has a duplicate
		if err != nil && first == nil {
			first = fmt.Errorf("descriptor from systemd %s: %w; pass stream sockets only: ListenStream= with Accept=no", quoted(f.Name()), err)
		}
		if err == nil {
			sockets = append(sockets, inheritedSocket{name: f.Name(), listener: ln})
		}
	}
	if first != nil {
		for _, s := range sockets {
			s.listener.Close()
		}
		return nil, first
	}
	return sockets, nil
}

func listenerOf(f *os.File) (netListener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("is not usable: %w", err)
	}
	var typ, accepts int
	var opt error
	err = raw.Control(func(fd uintptr) {
		if typ, opt = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE); opt == nil {
			accepts, opt = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		}
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("is not usable: %w", err)
	case opt != nil:
		return nil, fmt.Errorf("is not a socket: %w", opt)
	case typ != syscall.SOCK_STREAM && typ != syscall.SOCK_SEQPACKET: // the latter for the writer
		return nil, fmt.Errorf("is not a stream socket")
	case accepts == 0:
		return nil, fmt.Errorf("is not listening")
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot be served: %w", err)
	}
	switch ln := ln.(type) {
	case *net.UnixListener:
		return ln, nil
	case *net.TCPListener:
		return ln, nil
	}
	ln.Close()
	return nil, fmt.Errorf("is neither a Unix nor a TCP socket")
}
