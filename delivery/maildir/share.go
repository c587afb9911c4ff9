package maildir

import (
	"bytes"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Copies that may share a file (Target.Share) and would be the same octets of the same
// owner do so where they lie on one file system. The first of them to get there writes
// and syncs the file as if it were alone; the others only find their mailbox, and then
// give the file a further name. Each keeps its own place, quota, flags, token and error.
//
// The file is held open by all of them together, so that it can be linked whatever
// becomes of the copy that wrote it. Where it cannot be linked (too many links, another
// mount, no links there), and where its writer has failed or hangs, a copy writes a
// file of its own.

// sharing is all copies of one call that may be one file.
type sharing struct {
	mu    sync.Mutex
	files map[sharePlace]*sharedFile // the one to be shared now
	all   []*sharedFile
	users int // copies that may still want a file
}

// sharePlace is where one file can have several names. In a directory that hands its
// group down (setgid) a file is not what it is elsewhere.
type sharePlace struct {
	dev    device
	mount  uint64
	setgid bool
	group  uint32
}

// sharedFile is a file that copies share.
type sharedFile struct {
	writer *delivery
	phase  int // that it was begun in

	mu    sync.Mutex // never held during a system call that may hang
	state fileState
	fd    int // of its own, -1 before it is written
	ino   unix.Stat_t
	disk  disk
	links int // names given so far

	syncing sync.Mutex
	synced  int   // names that were there when the file was synced last
	err     error // of that: the kernel tells it once, and it holds for all
}

type fileState uint8

const (
	fileBegun   fileState = iota
	fileWritten           // but it may not have a name yet
	fileReady             // it may
	fileFailed
)

// The phases in which a copy may begin to write a file.
const (
	sharePrepare = iota
	shareSync
)

// share joins the copies of a call that may be one file.
func share(copies []*delivery) {
	for i, d := range copies {
		if !d.t.Share || d.sharing != nil {
			continue
		}
		for _, other := range copies[i+1:] {
			if !other.t.Share || other.sharing != nil || !sameOwner(d.t.Owner, other.t.Owner) || !bytes.Equal(d.t.Header, other.t.Header) {
				continue
			}
			if d.sharing == nil {
				d.sharing = &sharing{files: make(map[sharePlace]*sharedFile), users: 1}
			}
			other.sharing = d.sharing
			d.sharing.users++
		}
	}
}

func sameOwner(a, b *Owner) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && a.GID == b.GID && slices.Equal(a.Groups, b.Groups)
}

// leaveSharing: the copy has no part in a shared file any more. The last one closes
// what there is.
func (d *delivery) leaveSharing() {
	s := d.sharing
	if s == nil {
		return
	}
	d.sharing, d.common = nil, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		for _, f := range s.all {
			closeFD(&f.fd)
		}
	}
}

// writes decides whether this copy writes a file: if there is none that it could share,
// or the one there has failed or is stuck in an earlier phase.
func (d *delivery) writes(phase int) bool {
	s := d.sharing
	place, err := sharePlaceOf(d.new)
	if err != nil {
		d.leaveSharing()
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[place]; f != nil && f.promises(phase) {
		d.common = f
		return false
	}
	d.common = &sharedFile{writer: d, phase: phase, fd: -1}
	s.files[place] = d.common
	s.all = append(s.all, d.common)
	return true
}

// promises reports whether in this phase the file may still become ready.
func (f *sharedFile) promises(phase int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == fileWritten || f.state == fileReady || f.state == fileBegun && f.phase >= phase
}

// sharePlaceOf looks at the directory in which a file gets its name.
func sharePlaceOf(dir int) (p sharePlace, err error) {
	const want = unix.STATX_MODE | unix.STATX_GID | unix.STATX_MNT_ID
	var st unix.Statx_t
	if err := unix.Statx(dir, "", unix.AT_EMPTY_PATH, want, &st); err != nil {
		return p, err
	}
	p = sharePlace{dev: device{st.Dev_major, st.Dev_minor}, mount: st.Mnt_id}
	if st.Mode&unix.S_ISGID != 0 {
		p.setgid, p.group = true, st.Gid
	}
	return p, nil
}

// isWriter reports whether the copy has its own file: alone, or for others too.
func (d *delivery) isWriter() bool { return d.common == nil || d.common.writer == d }

// fillShared is fill, but where another copy writes the file.
func (d *delivery) fillShared(begin time.Time, phase int) error {
	if d.sharing == nil {
		return d.fillCloned(begin, phase)
	}
	if !d.writes(phase) {
		return nil
	}
	err := d.fill(begin)
	if f := d.common; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if err == nil {
			f.ino, f.disk, f.state = d.ino, d.disk, fileWritten
			f.fd, _ = unix.FcntlInt(uintptr(d.file), unix.F_DUPFD_CLOEXEC, 0) // -1: nobody else can use it
		}
		if err != nil || f.fd < 0 {
			f.state = fileFailed
		}
	}
	return err
}

// syncShared is sync. A copy whose writer has not come so far writes the file now, and
// the others get another chance to share it.
func (d *delivery) syncShared() error {
	if !d.isWriter() && !d.common.promises(shareSync) {
		err := d.asOwner(func() error { return d.fillShared(d.w.now(), shareSync) })
		if err != nil {
			return err
		}
	}
	if !d.isWriter() {
		return nil
	}
	if d.isClone() {
		if err := d.asOwner(func() error { return d.becomeClone(d.w.now()) }); err != nil {
			return err
		}
	}
	err := d.sync()
	if f := d.common; f != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.disk = d.disk // it may have turned out not to be ordered
		if err != nil {
			f.state = fileFailed
		} else if f.state == fileWritten {
			f.state = fileReady
		}
	}
	return err
}

// nameShared is name. What cannot be linked, or is not ready when the time has come, is
// written as a file of the copy's own.
func (d *delivery) nameShared() error {
	f := d.common
	if f == nil {
		return d.name()
	}
	if d.isWriter() || d.adopt() {
		err := d.name()
		if err == nil {
			f.mu.Lock()
			f.links++
			f.mu.Unlock()
			return nil
		}
		if !errors.Is(err, unix.EMLINK) && (d.isWriter() || !errors.Is(err, errUnnamed)) {
			return err
		}
		_ = d.discard() // it has no name
	}
	d.leaveSharing()
	return d.again()
}

// adopt makes the shared file this copy's, if it is ready.
func (d *delivery) adopt() bool {
	f := d.common
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != fileReady {
		return false
	}
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return false
	}
	d.file, d.ino, d.disk, d.classic = fd, f.ino, f.disk, false
	return true
}

// syncNamed brings the file itself to disk, whose count of links has changed with each
// name; once for all names that were there before.
func (f *sharedFile) syncNamed(d *delivery) error {
	f.mu.Lock()
	links := f.links
	f.mu.Unlock()
	f.syncing.Lock()
	defer f.syncing.Unlock()
	if f.synced >= links || links == 1 {
		return nil
	}
	if f.err != nil {
		return d.fail(OpSyncNamed, d.res.File, f.err)
	}
	f.mu.Lock()
	links = f.links
	f.mu.Unlock()
	err := d.do(OpSyncNamed, d.res.File, func() error {
		err := unix.Fsync(d.file)
		if err != nil && err != unix.EINTR {
			f.err = err
		}
		return err
	})
	if err == nil {
		f.synced = links
	}
	return err
}
