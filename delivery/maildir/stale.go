package maildir

import (
	"context"
	"errors"
	"hash/maphash"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Files that a crashed delivery has left in tmp/ are removed once they are stale. The
// Maildir text (https://cr.yp.to/proto/maildir.html) has readers do it, "files in tmp/
// not accessed for 36 hours"; not every reader does.
//
// go-maildir has Dir.Clean for this. It goes by paths, in which links are followed, by
// the last access alone, which is not kept on a file system mounted noatime, and
// without a bound on the directory. This one goes the way of a delivery: as the owner,
// beneath the root, through no link.
//
// Nobody waits for it. A mailbox is looked at after a delivery to it, at most once in
// staleEvery, in a goroutine of its own.
const (
	staleAge      = 36 * time.Hour // since the last access, write and change of the file
	staleEvery    = 24 * time.Hour
	staleEntries  = 4096 // of tmp/ that one look takes
	staleRemovals = 256  // by one look; the next delivery goes on
	staleLooks    = 8    // at once; a home that hangs may hold one for ever
	staleSeen     = 1 << 14
)

// Stale tells of files that were removed from one tmp/.
type Stale struct {
	Dir     string // absolute path
	Removed int
	Err     error // what ended it early, an *Error, or nil
}

// staleKeeper is a Writer's memory of this. Its zero value is ready.
type staleKeeper struct {
	mu    sync.Mutex
	begun time.Time           // of this period
	seen  map[uint64]struct{} // hashes of the tmp/ that were looked at in it
	seed  maphash.Seed
	looks int            // under way
	over  sync.WaitGroup // of looks
	count atomic.Int64   // files that no Result has told of
}

// due reports whether dir is to be looked at now, and notes it. The caller has to
// call done after it.
func (k *staleKeeper) due(dir string, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.looks >= staleLooks {
		return false
	}
	// A set that is full begins anew: it costs another look at a few directories.
	if age := now.Sub(k.begun); k.seen == nil || age < 0 || age >= staleEvery || len(k.seen) >= staleSeen {
		k.seen, k.seed, k.begun = make(map[uint64]struct{}), maphash.MakeSeed(), now
	}
	h := maphash.String(k.seed, dir)
	if _, ok := k.seen[h]; ok {
		return false
	}
	k.seen[h] = struct{}{}
	k.looks++
	k.over.Add(1)
	return true
}

// done ends a look. With again, the next delivery has another.
func (k *staleKeeper) done(dir string, again bool) {
	defer k.over.Done()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looks--
	if again {
		delete(k.seen, maphash.String(k.seed, dir))
	}
}

// tidying returns what looks for stale files where a copy has been delivered; nil if
// that is not due. It keeps nothing of d, which belongs to others once it is told.
func (w *Writer) tidying(d *delivery) func() {
	if !w.RemoveStale || d.res.Err != nil {
		return nil
	}
	rel := path.Join(d.base, "tmp")
	dir := d.abs(rel)
	if !w.stale.due(dir, w.now()) {
		return nil
	}
	t := Target{Owner: d.t.Owner, Root: d.t.Root, Path: d.t.Path}
	return func() { w.removeStale(&t, rel, dir) }
}

// removeStale is one look at tmp/, with a delivery's means and no message.
func (w *Writer) removeStale(t *Target, rel, dir string) {
	s := Stale{Dir: dir}
	again := false
	d := newDelivery(context.Background(), w, &Body{}, t, 0)
	s.Err = d.asOwner(func() (err error) {
		defer d.close()
		if err = d.openRoot(); err == nil {
			s.Removed, again, err = d.emptyTmp(rel)
		}
		return err
	})
	w.stale.count.Add(int64(s.Removed))
	if w.Stale != nil && (s.Removed > 0 || s.Err != nil) {
		w.Stale(s)
	}
	w.stale.done(dir, again)
}

// emptyTmp removes the stale files of a tmp/. again: there may be more.
func (d *delivery) emptyTmp(rel string) (removed int, again bool, err error) {
	fd, err := d.openDir(rel, readDir)
	if err != nil {
		if errors.Is(err, unix.ENOENT) { // nobody needs it
			err = nil
		}
		return 0, false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, d.fail(OpOpen, d.abs(rel), err)
	}
	if d.notForeign(st.Uid) != nil {
		return 0, false, nil // a delivery that needs it says so
	}
	before := d.w.now().Add(-staleAge)
	entries := 0
	var failed error
	_, err = d.seekIn(fd, rel, func(name string) bool {
		if entries++; entries > staleEntries || removed >= staleRemovals {
			return true
		}
		if isStale(fd, name, before) {
			abs := d.abs(path.Join(rel, name))
			if err := d.do(OpStale, abs, func() error { return unix.Unlinkat(fd, name, 0) }); err != nil {
				failed = err
				return true
			}
			removed++
		}
		return false
	})
	if err == nil {
		err = failed
	}
	return removed, err == nil && removed >= staleRemovals, err
}

// isStale reports whether name is a plain file that nobody has touched since before.
// The change time cannot be set by anybody, so that a message which is moved here, or
// unpacked with an old date, has its 36 hours.
func isStale(dir int, name string, before time.Time) bool {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	for _, ts := range []unix.Timespec{st.Atim, st.Mtim, st.Ctim} {
		if !time.Unix(ts.Unix()).Before(before) {
			return false
		}
	}
	return true
}
