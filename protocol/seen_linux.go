package protocol

import (
	"syscall"
	"unsafe"
)

// pendingInput is the number of octets that can be read from a socket at once.
func pendingInput(fd uintptr) int { return pending(fd, syscall.TIOCINQ) }

// pendingOutput is the number of octets that the peer's kernel has not taken (TCP), or
// its program has not read (Unix).
func pendingOutput(fd uintptr) int { return pending(fd, syscall.TIOCOUTQ) }

func pending(fd uintptr, request uintptr) int {
	var n int32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return int(n)
}

// peerClosed asks for POLLRDHUP (0x2000), POLLHUP and POLLERR without waiting, and
// takes nothing from the socket.
func peerClosed(fd uintptr) bool {
	const hangup = 0x2000 | 0x10 | 0x8
	p := struct {
		fd      int32
		events  int16
		revents int16
	}{int32(fd), 0x2000, 0}
	var now syscall.Timespec
	n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && n == 1 && p.revents&hangup != 0
}
