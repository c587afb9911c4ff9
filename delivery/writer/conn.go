package writer

import (
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// packetConn sends and receives packets. One goroutine may receive while others send.
type packetConn struct {
	conn *net.UnixConn
	raw  syscall.RawConn
}

func newPacketConn(c *net.UnixConn) (*packetConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	return &packetConn{c, raw}, nil
}

// packets are buffers for one packet. A connection has one only while it needs it,
// so that one that idles costs no memory.
var packets = sync.Pool{New: func() any { return new([maxPacket]byte) }}

// receive waits for a packet and calls f with it and with the descriptor that came
// with it, -1 if there is none, which is f's from then on. The packet is valid until
// f returns. It returns io.EOF at the end of the connection, or else f's error.
func (c *packetConn) receive(f func(packet []byte, fd int) error) error {
	var buf *[maxPacket]byte
	var n, oobn, flags int
	var err error
	var oob [128]byte
	wait := c.raw.Read(func(s uintptr) bool {
		buf = packets.Get().(*[maxPacket]byte)
		for range 100 {
			n, oobn, flags, _, err = unix.Recvmsg(int(s), buf[:], oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			packets.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer packets.Put(buf)
	}
	if wait != nil {
		return wait
	}
	if err != nil {
		return fmt.Errorf("recvmsg: %w", err)
	}
	fd, err := onlyDescriptor(oob[:oobn])
	switch {
	case err != nil:
		return err
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		closeFD(fd)
		return fmt.Errorf("%w: packet of more than %d octets, or with several descriptors", errProtocol, maxPacket)
	case n == 0 && fd < 0:
		return io.EOF
	}
	return f(buf[:n], fd)
}

// onlyDescriptor returns the descriptor in a control message, -1 if there is none.
// More than one are an error, and all of them are closed.
func onlyDescriptor(oob []byte) (int, error) {
	if len(oob) == 0 {
		return -1, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return -1, fmt.Errorf("%w: control message: %w", errProtocol, err)
	}
	var all []int
	strange := false
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		strange = strange || err != nil
		all = append(all, fds...)
	}
	if strange || len(all) != 1 {
		for _, fd := range all {
			closeFD(fd)
		}
		return -1, fmt.Errorf("%w: %d descriptors with a packet", errProtocol, len(all))
	}
	return all[0], nil
}

// send sends one packet, with a descriptor if fd is not negative. After an error
// the other side has not received it.
func (c *packetConn) send(packet []byte, fd int) error {
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	_, _, err := c.conn.WriteMsgUnix(packet, oob, nil)
	return err
}

// peer is the process that made the connection (or, for the one that connects, that
// began to listen), as the kernel noted it at that moment.
func (c *packetConn) peer() (*unix.Ucred, error) {
	var cred *unix.Ucred
	var opt error
	err := c.raw.Control(func(s uintptr) {
		cred, opt = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = opt
	}
	return cred, err
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
