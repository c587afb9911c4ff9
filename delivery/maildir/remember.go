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

// deviceSet holds devices, dirSet directories. The zero value is empty.
type (
	deviceSet struct{ boundedSet[device] }
	dirSet    struct{ boundedSet[dirID] }
)

func (s *deviceSet) add(d device) { s.put(d, maxDevices) }
func (s *dirSet) add(d dirID)     { s.put(d, maxSettled) }

// boundedSet is a set that begins anew when it is full. Its zero value is empty.
type boundedSet[K comparable] struct {
	mu sync.RWMutex
	m  map[K]struct{}
}

func (s *boundedSet[K]) has(k K) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.m[k]
	return ok
}

func (s *boundedSet[K]) put(k K, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= most {
		s.m = make(map[K]struct{})
	}
	s.m[k] = struct{}{}
}

// dirID identifies a directory for as long as it exists; the birth time keeps
// it apart from a later one with the same inode number.
type dirID struct {
	dev       device
	ino       uint64
	born      int64
	bornNanos uint32
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
