package writer

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// outgoing is a body on its way to the writer: inline, or as a descriptor.
type outgoing struct {
	maildir.Body
	inline []byte
	fd     int // -1: inline
	memfd  int // fd, if it has been made here
}

// newOutgoing decides how a body travels. A body in memory that is too large for
// the socket becomes a memfd. That is not sealed: the writer reads it with pread,
// which needs none, and a front that changes it spoils only its own message.
func newOutgoing(b *maildir.Body) (*outgoing, error) {
	o := &outgoing{Body: *b, fd: -1, memfd: -1}
	switch {
	case b.Size < 0 || b.Lines < 0 || b.Lines > b.Size || b.File == nil && b.Size != int64(len(b.Data)):
		return nil, errors.New("size of the body does not fit its data")
	case b.File != nil:
		o.fd = int(b.File.Fd())
	case b.Size <= maxInline:
		o.inline = b.Data
	default:
		fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		o.fd, o.memfd = fd, fd
		for rest := b.Data; len(rest) > 0; {
			n, err := unix.Write(fd, rest)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				o.close()
				return nil, os.NewSyscallError("memfd", err)
			}
			rest = rest[n:]
		}
	}
	return o, nil
}

func (o *outgoing) close() { closeFD(o.memfd) }

// incoming makes the body of a request that has arrived, and what is to be called
// when the request is over. A copy that hangs may keep the file open longer.
//
// Only a regular file is taken: reading anything else may block for ever or do
// something. The front can pass what it could read itself and nothing else, for the
// rights of a descriptor are those of whoever opened it.
func (r *request) incoming() (b maildir.Body, release func(), err error) {
	b = maildir.Body{Data: r.data, Size: r.size, Lines: r.lines}
	uses := new(atomic.Int64)
	b.Retain = func() func() {
		uses.Add(1)
		return func() {
			if uses.Add(-1) == 0 && b.File != nil {
				b.File.Close()
			}
		}
	}
	release = b.Retain()
	if r.body != bodyFile {
		return b, release, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(r.file, &st); err != nil {
		return b, nil, os.NewSyscallError("fstat", err)
	}
	flags, err := unix.FcntlInt(uintptr(r.file), unix.F_GETFL, 0)
	switch {
	case err != nil:
		return b, nil, os.NewSyscallError("fcntl", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return b, nil, fmt.Errorf("%w: the body is no regular file", errProtocol)
	case flags&unix.O_PATH != 0 || flags&unix.O_ACCMODE == unix.O_WRONLY:
		return b, nil, fmt.Errorf("%w: the body is not open for reading", errProtocol)
	case r.size > st.Size:
		return b, nil, fmt.Errorf("%w: body of %d octets in a file of %d", errProtocol, r.size, st.Size)
	}
	b.File = os.NewFile(uintptr(r.file), "message")
	r.file = -1
	return b, release, nil
}
