package maildir

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a Writer remembers is only ever a shortcut, so a set that is full is
// emptied and begins anew.
const (
	maxDevices = 64
	maxSettled = 4096
)

// device identifies a mounted file system.
type device struct{ major, minor uint32 }

// deviceSet holds devices. The zero value is empty.
type deviceSet struct {
	mu sync.RWMutex
	m  map[device]struct{}
}

func (s *deviceSet) has(d device) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.m[d]
	return ok
}

func (s *deviceSet) add(d device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxDevices {
		s.m = make(map[device]struct{})
	}
	s.m[d] = struct{}{}
}

// dirID identifies a directory for as long as it exists; the birth time keeps
// it apart from a later one with the same inode number.
type dirID struct {
	dev       device
	ino       uint64
	born      int64
	bornNanos uint32
}

// dirSet holds directories. The zero value is empty.
type dirSet struct {
	mu sync.RWMutex
	m  map[dirID]struct{}
}

func (s *dirSet) has(d dirID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.m[d]
	return ok
}

func (s *dirSet) add(d dirID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= maxSettled {
		s.m = make(map[dirID]struct{})
	}
	s.m[d] = struct{}{}
}

// identify returns the identity of an open directory, whose it is and, where the
// file system keeps it, the time it was made.
func identify(fd int) (id dirID, uid uint32, born time.Time, err error) {
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_UID|unix.STATX_BTIME, &st)
	if err != nil {
		return id, uid, born, err
	}
	id.dev = device{st.Dev_major, st.Dev_minor}
	id.ino = st.Ino
	if st.Mask&unix.STATX_BTIME != 0 {
		id.born, id.bornNanos = st.Btime.Sec, st.Btime.Nsec
		born = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	}
	return id, st.Uid, born, nil
}
