package maildir

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func yes() bool { return true }

// waitFor returns once n callers wait for the sync that follows the one under way.
func (s *dirSyncs) waitFor(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		waiting := 0
		if next := s.dirs[dirID{}]; next != nil {
			waiting = next.waiting
		}
		s.mu.Unlock()
		if waiting == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait, want %d", waiting, n)
		}
	}
}

// block begins a sync that ends when the function returned is called.
func (s *dirSyncs) block() (end func()) {
	begun, ended, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		s.do(dirID{}, func() error { close(begun); <-ended; return nil }, yes)
	}()
	<-begun
	return func() { close(ended); <-gone }
}

func (s *dirSyncs) expectEmpty(t *testing.T) {
	t.Helper()
	if len(s.dirs) != 0 {
		t.Errorf("%d directories are kept", len(s.dirs))
	}
}

// Those who come while a directory is synced share one sync, which begins after that.
func TestDirSyncShared(t *testing.T) {
	s := dirSyncs{patience: time.Hour}
	end := s.block()
	const n = 8
	var syncs, under atomic.Int32
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			err := s.do(dirID{}, func() error { syncs.Add(1); under.Add(1); return nil }, yes)
			if err != nil || syncs.Load() != 1 {
				t.Errorf("%v after %d syncs", err, syncs.Load())
			}
		})
	}
	s.waitFor(t, n)
	if under.Load() != 0 {
		t.Error("a sync began while another was under way")
	}
	other := 0
	if err := s.do(dirID{ino: 1}, func() error { other++; return nil }, yes); err != nil || other != 1 {
		t.Errorf("another directory: %v, %d syncs", err, other)
	}
	end()
	wg.Wait()
	if syncs.Load() != 1 {
		t.Errorf("%d syncs for %d callers", syncs.Load(), n)
	}
	s.expectEmpty(t)
}

// A shared sync that fails is its own caller's; the others have errors of their own.
// So it is when it says nothing about what they have written.
func TestDirSyncOwnError(t *testing.T) {
	bad := errors.New("bad")
	for name, c := range map[string]struct {
		err  error
		seen bool
		want int32 // syncs
	}{"fails": {bad, true, 3}, "says nothing": {nil, false, 3}, "is well": {nil, true, 1}} {
		s := dirSyncs{patience: time.Hour}
		end := s.block()
		var syncs, failed atomic.Int32
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				err := s.do(dirID{}, func() error {
					if syncs.Add(1) == 1 {
						return c.err
					}
					return nil
				}, func() bool { return c.seen })
				if err != nil {
					failed.Add(1)
				}
			})
		}
		s.waitFor(t, 3)
		end()
		wg.Wait()
		if syncs.Load() != c.want || (failed.Load() == 1) != (c.err != nil) || failed.Load() > 1 {
			t.Errorf("the first of them %s: %d syncs, %d failed", name, syncs.Load(), failed.Load())
		}
		s.expectEmpty(t)
	}
}

// Nobody waits for ever for one that hangs.
func TestDirSyncHangs(t *testing.T) {
	s := dirSyncs{patience: time.Millisecond}
	end := s.block()
	for range 3 {
		synced := false
		if err := s.do(dirID{}, func() error { synced = true; return nil }, yes); err != nil || !synced {
			t.Errorf("%v, synced %v", err, synced)
		}
	}
	end()
	s.expectEmpty(t)
}

// Of many at once with little patience none stays behind, and nothing is left.
func TestDirSyncPatience(t *testing.T) {
	s := dirSyncs{patience: time.Microsecond}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 500 {
				if err := s.do(dirID{}, func() error { return nil }, yes); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.expectEmpty(t)
}

func TestDirSyncAlone(t *testing.T) {
	var s dirSyncs
	sync := func() error { return nil }
	if n := testing.AllocsPerRun(100, func() { s.do(dirID{}, sync, yes) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Deliveries to one mailbox never sync it at the same time where that is not safe.
func TestDirSyncOfDeliveries(t *testing.T) {
	for _, overtakes := range []bool{true, false} {
		root := memoryDir(t)
		w := &Writer{}
		delivered(t, w, Target{Root: root}, "x\n")
		var st unix.Stat_t
		if err := unix.Stat(root, &st); err != nil {
			t.Fatal(err)
		}
		w.disks.put(device{unix.Major(st.Dev), unix.Minor(st.Dev)}, disk{overtakes: overtakes})
		w.dirSyncs.patience = time.Hour
		begun, both := make(chan struct{}, 2), make(chan struct{})
		w.Before = func(op, _ string) error {
			if op == OpSyncDir {
				begun <- struct{}{}
				<-both
			}
			return nil
		}
		var wg sync.WaitGroup
		deliver := func() {
			wg.Go(func() {
				w.Deliver(context.Background(), Body{Data: []byte("x\n"), Size: 2, Lines: 1}, []Target{{Root: root}}, func(_ int, r Result) {
					if r.Err != nil {
						t.Error(r.Err)
					}
				})
			})
		}
		deliver()
		<-begun
		deliver()
		if overtakes {
			for { // until it waits
				w.dirSyncs.mu.Lock()
				waits := false
				for _, next := range w.dirSyncs.dirs {
					waits = waits || next != nil
				}
				w.dirSyncs.mu.Unlock()
				if waits {
					break
				}
				time.Sleep(time.Millisecond)
			}
			if len(begun) > 0 {
				t.Error("two syncs at a time")
			}
		} else {
			<-begun
		}
		close(both)
		wg.Wait()
		if names, err := os.ReadDir(root + "/new"); err != nil || len(names) != 3 {
			t.Errorf("%d messages, %v", len(names), err)
		}
	}
}
