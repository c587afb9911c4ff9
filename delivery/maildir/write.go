package maildir

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	copyChunk  = 1 << 20   // octets per copy_file_range, so that a deadline is noticed
	bufferSize = 128 << 10 // octets of a copy buffer
)

// buffers for bodies in files that the kernel cannot copy by itself.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// write writes header and body, each octet once.
func (d *delivery) write() error {
	if d.body.File == nil {
		return d.writeAll(d.t.Header, d.body.Data)
	}
	if err := d.writeAll(d.t.Header); err != nil {
		return err
	}
	d.begun = 0
	off, err := d.copyInKernel()
	if err != nil || off == d.body.Size {
		return err
	}
	return d.copyByBuffer(off)
}

// writeAll writes the parts with as few calls as the kernel needs: one, but on
// a full disk or past 2 GiB.
func (d *delivery) writeAll(parts ...[]byte) error {
	for {
		for len(parts) > 0 && len(parts[0]) == 0 {
			parts = parts[1:]
		}
		if len(parts) == 0 {
			return nil
		}
		n := 0
		err := d.do(OpWrite, d.filePath(), func() (err error) {
			if n, err = unix.Writev(d.file, parts); n == 0 && err == nil {
				err = io.ErrShortWrite // no progress: do not try for ever
			}
			return err
		})
		if err != nil {
			return err
		}
		for n > 0 {
			k := min(n, len(parts[0]))
			parts[0] = parts[0][k:]
			n -= k
			if len(parts[0]) == 0 {
				parts = parts[1:]
			}
		}
	}
}

// copyInKernel copies the body by copy_file_range and returns how far it got.
// Short of the end without an error, the pair of file systems cannot do it.
func (d *delivery) copyInKernel() (off int64, err error) {
	src := int(d.body.File.Fd())
	defer runtime.KeepAlive(d.body.File)
	for off < d.body.Size {
		n := 0
		err := d.do(OpWrite, d.filePath(), func() (err error) {
			n, err = unix.CopyFileRange(src, &off, d.file, nil, int(min(copyChunk, d.body.Size-off)), 0)
			return err
		})
		switch {
		case err == nil && n > 0:
			d.beginWriteBack(off)
		case err == nil, unsupported(err), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EBADF):
			return off, nil
		default:
			return off, err
		}
	}
	return off, nil
}

// beginWriteBack sets the disk to work on the pages that are full when the body has
// been copied up to off: the sync has less to wait for then. It is a hint.
func (d *delivery) beginWriteBack(off int64) {
	const page = 4096
	if d.w.Durability == None {
		return
	}
	end := (int64(len(d.t.Header)) + off) &^ (page - 1)
	if end > d.begun {
		_ = unix.SyncFileRange(d.file, d.begun, end-d.begun, unix.SYNC_FILE_RANGE_WRITE)
		d.begun = end
	}
}

// copyByBuffer copies the body from off on.
func (d *delivery) copyByBuffer(off int64) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for off < d.body.Size {
		part := buf[:min(bufferSize, d.body.Size-off)]
		err := d.do(OpRead, d.body.File.Name(), func() error {
			n, err := d.body.File.ReadAt(part, off)
			if n == len(part) {
				return nil
			}
			if err == nil || err == io.EOF {
				err = fmt.Errorf("body ends after %d of %d octets: %w", off+int64(n), d.body.Size, io.ErrUnexpectedEOF)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := d.writeAll(part); err != nil {
			return err
		}
		if off += int64(len(part)); off%copyChunk == 0 {
			d.beginWriteBack(off)
		}
	}
	return nil
}
