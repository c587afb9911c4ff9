package maildir

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Probe is what would become of a copy, as far as that can be seen without
// writing one.
type Probe struct {
	Folder string // the folder it would go to, "" for INBOX
	Makes  string // the first directory that the delivery would make; "" if all are there
	Free   uint64 // octets that the owner may still write there, as the file system says
	Err    error  // an *Error as Deliver would give it; nil: nothing is in the way
}

// errWouldWrite ends a probe: the next step would change something.
var errWouldWrite = errors.New("would write")

// Probe takes the steps of a delivery to t, as its owner, up to the first that
// would write, and asks the kernel whether that one is allowed. So it meets the
// obstacles that a delivery meets, but for those of writing itself: quotas, and
// disks that fail.
func (w *Writer) Probe(ctx context.Context, t Target) Probe {
	var mu sync.Mutex // a step that hangs may end after the probe has
	var p Probe
	probe := &Writer{Hostname: w.Hostname, Durability: None, MinUID: w.MinUID, Clock: w.Clock}
	probe.Before = func(op, path string) error {
		mu.Lock()
		defer mu.Unlock()
		switch op {
		case OpMkdir:
			p.Makes = path
			path = filepath.Dir(path)
		case OpUnnamed:
		case OpCreate:
			path = filepath.Dir(path)
		default:
			return nil
		}
		if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return err
		}
		var st unix.Statfs_t
		if unix.Statfs(path, &st) == nil {
			p.Free = st.Bavail * uint64(st.Bsize)
			if st.Bavail == 0 && st.Blocks > 0 {
				return unix.ENOSPC
			}
		}
		return errWouldWrite
	}
	var res Result
	probe.Deliver(ctx, Body{}, []Target{t}, func(_ int, r Result) { res = r })
	mu.Lock()
	defer mu.Unlock()
	result := p
	if result.Folder = res.Folder; !errors.Is(res.Err, errWouldWrite) {
		result.Err = res.Err
	}
	return result
}
