package maildir

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// overtaking is a file system as those of dirsync.go.
var overtaking = disk{overtakes: true}

// Deliveries to one mailbox that come while it is synced share one sync, which begins
// after that; those to another have nothing to wait for.
func TestDirSyncShared(t *testing.T) {
	committingOn(t, overtaking, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a sync directory")
		first := start("a")
		rest := []<-chan error{start("a"), start("a"), start("a")}
		wantSteps(t, s, "a link", "a link", "a link", "a link")
		wantNil(t, start("b"))
		wantSteps(t, s, "b link", "b sync directory")
		close(held)
		wantNil(t, append(rest, first)...)
		wantSteps(t, s, "a sync directory", "a sync directory")
	})
}

// Elsewhere nobody waits.
func TestDirSyncApart(t *testing.T) {
	committingOn(t, disk{}, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a sync directory")
		first := start("a")
		delete(s.hold, "a sync directory")
		wantNil(t, start("a"))
		close(held)
		wantNil(t, first)
	})
}

// A shared sync that fails is its own caller's; the others have errors of their own.
func TestDirSyncOwnError(t *testing.T) {
	committingOn(t, overtaking, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a sync directory")
		first := start("a")
		s.fail["a sync directory"] = syscall.EIO
		second, third := start("a"), start("a")
		s.steps()
		close(held)
		wantNil(t, first)
		if err := <-second; !errors.Is(err, syscall.EIO) {
			t.Errorf("the one who synced: %v", err)
		}
		wantNil(t, third)
		wantSteps(t, s, "a sync directory", "a sync directory", "a sync directory")
	})
}

// Nobody waits for ever for one that hangs.
func TestDirSyncHangs(t *testing.T) {
	committingOn(t, overtaking, func(t *testing.T, s *script, start func(...string) <-chan error) {
		held := s.holds("a sync directory")
		first := start("a")
		delete(s.hold, "a sync directory")
		begin := time.Now() // of the bubble
		wantNil(t, start("a"))
		if took := time.Since(begin); took < stuckAfter {
			t.Errorf("it waited for %v only", took)
		}
		close(held)
		wantNil(t, first)
	})
}
