package protocol

import (
	"net"
	"syscall"
)

// peerCred asks the kernel; nil for what is no Unix socket.
func peerCred(conn net.Conn) *PeerCred {
	if a := conn.LocalAddr(); a == nil || a.Network() != "unix" {
		return nil
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *syscall.Ucred
	raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || cred == nil {
		return nil
	}
	return &PeerCred{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
}
