package maildir

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hanging is a Before that blocks one step of one mailbox until it is released.
type hanging struct {
	op, box string
	begun   chan struct{} // receives once per copy that hangs
	release chan struct{}
}

func newHanging(op, box string) *hanging {
	return &hanging{op: op, box: box, begun: make(chan struct{}, 100), release: make(chan struct{})}
}

func (h *hanging) before(op, path string) error {
	if op == h.op && strings.Contains(path, "/"+h.box) {
		h.begun <- struct{}{}
		<-h.release
	}
	return nil
}

// A mailbox that hangs, at whatever step, holds up nobody else: the others are
// told while it still hangs.
func TestHangHoldsNobodyUp(t *testing.T) {
	for _, op := range []string{OpOpen, OpUnnamed, OpWrite, OpSync, OpLink, OpSyncDir, OpWriteBack} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			root := memoryDir(t)
			boxes := []string{"a", "stuck", "b", "c", "d", "e", "f", "g"}
			for _, box := range boxes {
				delivered(t, &Writer{}, Target{Root: root, Path: box}, "first\n")
			}
			h := newHanging(op, "stuck")
			w := &Writer{Before: h.before, Order: orderWith(op)}
			var targets []Target
			for _, box := range boxes {
				targets = append(targets, Target{Root: root, Path: box})
			}
			results := make(chan int, len(boxes))
			var all sync.WaitGroup
			all.Go(func() {
				w.Deliver(t.Context(), memory("second\n"), targets, func(i int, r Result) {
					if r.Err != nil {
						t.Errorf("%s: %v", boxes[i], r.Err)
					}
					results <- i
				})
			})
			for range len(boxes) - 1 {
				if i := <-results; boxes[i] == "stuck" {
					t.Error("the one that hangs was told before it was released")
				}
			}
			close(h.release)
			if i := <-results; boxes[i] != "stuck" {
				t.Errorf("%s was told last", boxes[i])
			}
			all.Wait()
			for _, box := range boxes {
				if got := messages(t, filepath.Join(root, box)); len(got) != 2 {
					t.Errorf("%s: %d messages, want 2", box, len(got))
				}
			}
		})
	}
}

// orderWith is one that has this step.
func orderWith(op string) SyncOrder {
	if op == OpWriteBack {
		return syncOnce
	}
	return SyncStrict
}

// retained is a body that counts its release.
func retained(text string) (b Body, released chan struct{}) {
	released = make(chan struct{}, 10)
	b = memory(text)
	b.Retain = func() func() { return func() { released <- struct{}{} } }
	return b, released
}

// At the deadline a copy that hangs before it is named is told as failed, and
// never appears later; the body is released when nobody can read it any more.
func TestHangIsAbandonedAtTheDeadline(t *testing.T) {
	for _, op := range []string{OpOpen, OpUnnamed, OpWrite, OpSync, OpWriteBack} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			root := memoryDir(t)
			delivered(t, &Writer{}, Target{Root: root, Path: "stuck"}, "first\n")
			h := newHanging(op, "stuck")
			w := &Writer{Before: h.before, Order: orderWith(op)}
			b, released := retained("second\n")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				<-h.begun
				cancel()
			}()
			told := 0
			w.Deliver(ctx, b, []Target{{Root: root, Path: "stuck"}, {Root: root, Path: "other"}}, func(i int, r Result) {
				if i == 0 {
					told++
					wantError(t, r, context.Canceled)
				}
			})
			if told != 1 {
				t.Errorf("told %d times", told)
			}
			select {
			case <-released:
				t.Error("released while the copy still hangs")
			default:
			}
			close(h.release)
			<-released
			if got := messages(t, filepath.Join(root, "stuck")); len(got) != 1 {
				t.Errorf("%d messages, want the first alone", len(got))
			}
			if left := entries(t, filepath.Join(root, "stuck", "tmp")); len(left) > 0 {
				t.Errorf("left in tmp/: %v", left)
			}
		})
	}
}

// A copy that hangs while it is named is not abandoned: nobody knows yet what
// becomes of it.
func TestHangWhileNamedIsWaitedFor(t *testing.T) {
	root := memoryDir(t)
	h := newHanging(OpLink, "stuck")
	w := &Writer{Before: h.before}
	b, released := retained("x\n")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-h.begun
		cancel()
		close(h.release)
	}()
	told := 0
	w.Deliver(ctx, b, []Target{{Root: root, Path: "stuck"}}, func(_ int, r Result) {
		told++
		if r.Err != nil {
			t.Error(r.Err)
		}
	})
	if told != 1 || len(messages(t, filepath.Join(root, "stuck"))) != 1 {
		t.Errorf("told %d times, %d messages", told, len(messages(t, filepath.Join(root, "stuck"))))
	}
	if w.hung.total != 0 || len(w.hung.boxes) != 0 {
		t.Errorf("still counted as hanging: %+v", w.hung.boxes)
	}
	select {
	case <-released: // retained for nothing, and released all the same
	default:
	}
}

// When enough copies hang in a mailbox for long, the next ones are refused at once and
// take no thread.
func TestHangIsBounded(t *testing.T) {
	root := memoryDir(t)
	h := newHanging(OpSync, "stuck")
	var later atomic.Int64 // nanoseconds
	w := &Writer{Before: h.before, Clock: func() time.Time { return time.Unix(1_800_000_000, later.Load()) }}
	var all sync.WaitGroup
	for range maxHungBoxes {
		all.Go(func() {
			w.Deliver(t.Context(), memory("x\n"), []Target{{Root: root, Path: "stuck"}}, func(int, Result) {})
		})
	}
	for range maxHungBoxes {
		<-h.begun
	}
	// They hang, and are counted once they have been watched for long enough.
	for {
		w.hung.mu.Lock()
		n := w.hung.total
		w.hung.mu.Unlock()
		if n == maxHungBoxes {
			break
		}
		refused := make(chan error, 1)
		w.Deliver(t.Context(), memory("x\n"), []Target{{Root: root, Path: "other"}}, func(_ int, r Result) { refused <- r.Err })
		if err := <-refused; err != nil {
			t.Fatal(err)
		}
	}
	stuck := Target{Root: root, Path: "stuck"}
	b := memory("x\n")
	if err := w.busy(newDelivery(t.Context(), w, &b, &stuck, 0)); err != nil {
		t.Errorf("the disk may only be slow: %v", err)
	}
	later.Store(int64(stuckAfter + 1))
	w.Deliver(t.Context(), b, []Target{stuck, {Root: root, Path: "other"}}, func(i int, r Result) {
		if i == 0 && !errors.Is(r.Err, ErrBusy) {
			t.Errorf("got %v, want ErrBusy", r.Err)
		}
		if i == 1 && r.Err != nil {
			t.Error(r.Err)
		}
	})
	close(h.release)
	all.Wait()
	if w.hung.total != 0 || len(w.hung.boxes) != 0 {
		t.Errorf("still counted as hanging: %d, %v", w.hung.total, w.hung.boxes)
	}
}
