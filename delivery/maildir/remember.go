package maildir

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a Writer remembers is only ever a shortcut, so what is full is
// emptied and begins anew.
const (
	maxDevices = 64
	maxSettled = 4096
)

// device identifies a mounted file system.
type device struct{ major, minor uint32 }

// disks and dirSet are what is remembered. The zero value is empty.
type (
	disks  struct{ bounded[device, disk] }
	dirSet struct{ bounded[dirID, struct{}] }
)

func (s *disks) put(d device, k disk) { s.keep(d, k, maxDevices) }
func (s *dirSet) add(d dirID)         { s.keep(d, struct{}{}, maxSettled) }

func (s *dirSet) has(d dirID) bool {
	_, ok := s.get(d)
	return ok
}

// bounded is a map that begins anew when it is full. Its zero value is empty.
type bounded[K comparable, V any] struct {
	mu sync.RWMutex
	m  map[K]V
}

func (s *bounded[K, V]) get(k K) (V, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.m[k]
	return v, ok
}

func (s *bounded[K, V]) keep(k K, v V, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= most {
		s.m = make(map[K]V)
	}
	s.m[k] = v
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
