package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// script is a Before that notes the steps of the mailboxes below root as "box step",
// and holds those it is told to, or fails the next of them.
type script struct {
	root string
	w    *Writer
	mu   sync.Mutex
	seen []string
	hold map[string]chan struct{}
	fail map[string]error
}

func newScript(root string) *script {
	return &script{root: root, hold: map[string]chan struct{}{}, fail: map[string]error{}}
}

func (s *script) before(op, path string) error {
	if op != OpLink && op != OpSyncDir {
		return nil
	}
	rel, err := filepath.Rel(s.root, path)
	if err != nil {
		return err
	}
	box, _, _ := strings.Cut(rel, "/")
	step := box + " " + op
	s.mu.Lock()
	hold, fail := s.hold[step], s.fail[step]
	delete(s.fail, step)
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	s.mu.Lock()
	s.seen = append(s.seen, step)
	s.mu.Unlock()
	return fail
}

// holds makes a step wait until the channel is closed.
func (s *script) holds(step string) chan struct{} {
	c := make(chan struct{})
	s.hold[step] = c
	return c
}

// steps returns what was seen since it was called last.
func (s *script) steps() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

// committing runs f in a bubble in which time passes only when everybody waits, with
// mailboxes a to z that are there already.
func committing(t *testing.T, f func(t *testing.T, s *script, start func(boxes ...string) (errs <-chan error))) {
	committingOn(t, disk{ordered: true}, f)
}

func committingOn(t *testing.T, k disk, f func(t *testing.T, s *script, start func(boxes ...string) (errs <-chan error))) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(memoryDir(t))
		for box := 'a'; box <= 'z'; box++ {
			delivered(t, &Writer{}, Target{Root: s.root, Path: string(box)}, "first\n")
		}
		s.w = &Writer{Before: s.before}
		s.w.disks.put(deviceOf(t, s.root), k)
		f(t, s, func(boxes ...string) <-chan error {
			t.Helper()
			var targets []Target
			for _, box := range boxes {
				targets = append(targets, Target{Root: s.root, Path: box})
			}
			errs := make(chan error, len(boxes))
			go s.w.Deliver(context.Background(), memory("second\n"), targets, func(i int, r Result) {
				if r.Err != nil {
					errs <- fmt.Errorf("%s: %w", boxes[i], r.Err)
					return
				}
				if _, err := os.Stat(r.File); err != nil {
					t.Error(err)
				}
				errs <- nil
			})
			synctest.Wait()
			return errs
		})
		synctest.Wait()
		if len(s.w.commits.queues)+len(s.w.dirSyncs.queues) > 0 {
			t.Errorf("left: %v, %v", s.w.commits.queues, s.w.dirSyncs.queues)
		}
	})
}

func deviceOf(t *testing.T, path string) device {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return device{unix.Major(st.Dev), unix.Minor(st.Dev)}
}

func wantSteps(t *testing.T, s *script, want ...string) {
	t.Helper()
	if got := s.steps(); !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}

func wantNil(t *testing.T, errs ...<-chan error) {
	t.Helper()
	for _, c := range errs {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
}

// Those who come while a commit is under way share the next one, whose leader names its
// file after them; and what comes later has one of its own.
func TestCommitIsShared(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a sync directory")
		a := start("a")
		b, c, d := start("b"), start("c"), start("d")
		wantSteps(t, s, "a link", "c link", "d link")
		select {
		case <-c:
			t.Error("c was told before it was synced")
		default:
		}
		close(held)
		wantNil(t, a, b, c, d)
		wantSteps(t, s, "a sync directory", "b link", "b sync directory")
		wantNil(t, start("e"))
		wantSteps(t, s, "e link", "e sync directory")
	})
}

// All copies of a call share one, and join that of others.
func TestCommitOfManyCopies(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		many := func(steps []string) (links, syncs int) {
			for _, step := range steps {
				if strings.HasSuffix(step, OpLink) {
					links++
				} else {
					syncs++
				}
			}
			return links, syncs
		}
		errs := start("a", "b", "c", "d", "e", "f")
		wantNil(t, errs, errs, errs, errs, errs, errs)
		steps := s.steps()
		if links, syncs := many(steps); links != 6 || syncs != 1 {
			t.Errorf("%d links, %d syncs", links, syncs)
		}
		last, lead := steps[len(steps)-2], steps[len(steps)-1]
		if box, _, _ := strings.Cut(lead, " "); last != box+" link" || lead != box+" sync directory" {
			t.Errorf("the leader was not named last: %q", steps)
		}

		held := s.holds("g sync directory")
		g, h, errs := start("g"), start("h"), start("i", "j", "k")
		if links, syncs := many(s.steps()); links != 4 || syncs != 0 {
			t.Errorf("%d links, %d syncs", links, syncs)
		}
		close(held)
		wantNil(t, g, h, errs, errs, errs)
		wantSteps(t, s, "g sync directory", "h link", "h sync directory")
	})
}

// A leader that fails is alone with its error, at its sync and at its name.
func TestCommitLeaderFails(t *testing.T) {
	for _, op := range []string{OpLink, OpSyncDir} {
		committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
			held := s.holds("a sync directory")
			s.fail["b "+op] = syscall.EIO
			a, b, c := start("a"), start("b"), start("c")
			s.steps()
			close(held)
			if err := <-b; !errors.Is(err, syscall.EIO) {
				t.Errorf("b: %v", err)
			}
			wantNil(t, a, c)
			if got := s.steps(); !slices.Contains(got, "c sync directory") {
				t.Errorf("c did not sync itself: %q", got)
			}
		})
	}
}

// A leader that hangs, or the commit before, holds nobody up for long.
func TestCommitLeaderHangs(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		first, second := s.holds("a sync directory"), s.holds("b link")
		a, b, c := start("a"), start("b"), start("c")
		s.steps()
		begin := time.Now() // of the bubble
		wantNil(t, c)
		if took := time.Since(begin); took >= patience {
			t.Errorf("c waited for %v", took)
		}
		wantSteps(t, s, "c sync directory")
		many := start("d", "e", "f")
		wantNil(t, many, many, many)
		wantNil(t, start("g"))
		close(first)
		close(second)
		wantNil(t, a, b)
	})
}

// The leader is named when nobody can join any more.
func TestCommitClosedBeforeLeaderIsNamed(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a link")
		a, b := start("a"), start("b")
		wantSteps(t, s)
		close(held)
		wantNil(t, a, b)
		wantSteps(t, s, "a link", "a sync directory", "b link", "b sync directory")
	})
}

// Who is still being named when the commit is closed is not in it.
func TestCommitMissed(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		first, late := s.holds("a sync directory"), s.holds("c link")
		a, b, c := start("a"), start("b"), start("c")
		close(first)
		wantNil(t, a, b)
		s.steps()
		close(late)
		wantNil(t, c)
		wantSteps(t, s, "c link", "c sync directory")
	})
}

// A copy that hangs while it is named is not covered by the commit of its call.
func TestCommitWithoutHungCopy(t *testing.T) {
	committing(t, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("b link")
		errs := start("a", "b", "c", "d")
		wantNil(t, errs, errs, errs)
		s.steps()
		close(held)
		wantNil(t, errs)
		wantSteps(t, s, "b link", "b sync directory")
	})
}
