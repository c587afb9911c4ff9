package maildir

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// On ext4 without a journal, and on ext2, a sync of a directory may end before the
// directory is on disk: the kernel takes the blocks that are to be written off a list,
// and a second sync of the same directory, which finds the list empty, does not wait for
// the writes of the first (fsync_buffers_list, without the lock of the inode). So there
// one sync of a directory follows the other. Those who come while one is under way share
// the next, which begins after all their changes.
//
// That holds for one Writer. Another process that syncs the same directory, such as a
// reader that moves mail to cur/, can still make a sync of ours end too early.

// dirSyncs are the directories that are being synced. The zero value is empty.
type dirSyncs struct {
	patience time.Duration // 0 means the constant

	mu   sync.Mutex
	dirs map[dirID]*sharedSync // the sync that follows the one under way; nil: nobody waits
}

// sharedSync is one sync for all who came while another was under way.
type sharedSync struct {
	waiting int           // guarded by dirSyncs.mu, until it begins
	turn    chan struct{} // has one element when it may begin: who takes it does it
	ended   chan struct{} // closed at its end
	ok      bool          // to be read then
}

// do returns once a sync has ended well that began after the call, or with the error of
// the caller's own. Who has waited too long for others syncs at once: a neighbour that
// hangs must not hold him up. After a sync of others, seen tells whether that holds for
// the caller too.
func (s *dirSyncs) do(id dirID, sync func() error, seen func() bool) error {
	next := s.enter(id)
	if next == nil {
		defer s.leave(id)
		return sync()
	}
	limit := s.patience
	if limit == 0 {
		limit = patience
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	mine := false
	select {
	case <-next.turn:
		mine = true
	case <-next.ended:
		if next.ok && seen() {
			return nil
		}
	case <-timer.C:
		mine = s.giveUp(id, next)
	}
	if !mine {
		return sync()
	}
	defer s.leave(id)
	defer close(next.ended)
	err := sync()
	next.ok = err == nil
	return err
}

// enter returns nil if the caller may sync now, else what it has to wait for.
func (s *dirSyncs) enter(id dirID) *sharedSync {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, busy := s.dirs[id]
	if !busy {
		if s.dirs == nil {
			s.dirs = make(map[dirID]*sharedSync)
		}
		s.dirs[id] = nil
		return nil
	}
	if next == nil {
		next = &sharedSync{turn: make(chan struct{}, 1), ended: make(chan struct{})}
		s.dirs[id] = next
	}
	next.waiting++
	return next
}

// leave is the end of a sync: the turn is theirs who wait.
func (s *dirSyncs) leave(id dirID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.dirs[id]
	if next == nil {
		delete(s.dirs, id)
		return
	}
	s.dirs[id] = nil
	next.turn <- struct{}{}
}

// giveUp ends the waiting of one. It reports whether the turn has come meanwhile, which
// nobody else may be left to take.
func (s *dirSyncs) giveUp(id dirID, next *sharedSync) (mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-next.turn:
		return true
	default:
	}
	if next.waiting--; next.waiting == 0 && s.dirs[id] == next {
		s.dirs[id] = nil
	}
	return false
}

// fsyncDir syncs an open directory.
func (d *delivery) fsyncDir(op, abs string, fd int) error {
	sync := func() error { return d.do(op, abs, func() error { return unix.Fsync(fd) }) }
	id, _, _, err := identify(fd)
	if err != nil || !d.w.disk(fd, id.dev).overtakes {
		return sync()
	}
	return d.w.dirSyncs.do(id, sync, func() bool {
		// An error of writing back that came before the other opened the directory is
		// told only to those who had it open, and this asks for it.
		return unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE) == nil
	})
}
