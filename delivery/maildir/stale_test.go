package maildir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// tidied delivers a message, waits for the look at tmp/ and returns what it said; nil
// if it removed nothing, or there was none.
func tidied(t *testing.T, w *Writer, target Target) (told []Stale) {
	t.Helper()
	w.Stale = func(s Stale) { told = append(told, s) }
	r := make(chan Result, 1)
	w.Deliver(t.Context(), memory("x\n"), []Target{target}, func(_ int, res Result) { r <- res })
	if res := <-r; res.Err != nil {
		t.Fatal(res.Err)
	}
	w.stale.over.Wait()
	return told
}

// staleSite is a mailbox with a new file in tmp/, and with everything else that may
// lie there, and a Writer 37 hours later.
func staleSite(t testing.TB) (w *Writer, target Target, tmp string) {
	t.Helper()
	root := memoryDir(t)
	target = Target{Root: root, Path: "Maildir"}
	delivered(t, &Writer{Hostname: "mx"}, target, "x\n")
	tmp = filepath.Join(root, "Maildir/tmp")
	outside := filepath.Join(root, "outside")
	for _, err := range []error{
		os.WriteFile(filepath.Join(tmp, "crashed"), []byte("half a mess"), 0o600),
		os.WriteFile(outside, nil, 0o600),
		os.Symlink(outside, filepath.Join(tmp, "link")),
		os.Mkdir(filepath.Join(tmp, "directory"), 0o700),
		syscall.Mkfifo(filepath.Join(tmp, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w = &Writer{Hostname: "mx", RemoveStale: true, Clock: func() time.Time { return time.Now().Add(staleAge + time.Hour) }}
	return w, target, tmp
}

func TestStale(t *testing.T) {
	w, target, tmp := staleSite(t)
	// Of files that are old by one time, or by two, none is stale. The change time is
	// the kernel's: the clock of the Writer makes all of them old by that.
	later := time.Now().Add(2 * time.Hour)
	for name, times := range map[string][2]time.Time{"read": {later, time.Now()}, "written": {time.Now(), later}} {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, times[0], times[1]); err != nil {
			t.Fatal(err)
		}
	}
	if told := tidied(t, w, target); !slices.Equal(told, []Stale{{Dir: tmp, Removed: 1}}) {
		t.Errorf("%+v", told)
	}
	left := entries(t, tmp)
	slices.Sort(left)
	if want := []string{"directory", "fifo", "link", "read", "written"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	if _, err := os.Stat(filepath.Join(target.Root, "outside")); err != nil {
		t.Error(err)
	}
	// The result after it tells, once.
	if r := delivered(t, w, target, "x\n"); r.Stale != 1 {
		t.Errorf("%+v", r)
	}
	if r := delivered(t, w, target, "x\n"); r.Stale != 0 {
		t.Errorf("%+v", r)
	}
	if n := len(entries(t, filepath.Join(target.Root, "Maildir/new"))); n != 4 {
		t.Errorf("%d messages", n)
	}
}

// A file that is new by its change time is not stale, however old it says it is.
func TestStaleIsNotUnpacked(t *testing.T) {
	w, target, tmp := staleSite(t)
	old := time.Now().Add(-1000 * time.Hour)
	if err := os.Chtimes(filepath.Join(tmp, "crashed"), old, old); err != nil {
		t.Fatal(err)
	}
	w.Clock = time.Now
	if told := tidied(t, w, target); len(told) > 0 {
		t.Errorf("%+v", told)
	}
	if left := entries(t, tmp); !slices.Contains(left, "crashed") {
		t.Errorf("left are %q", left)
	}
}

// A mailbox is looked at once a day, each folder for itself; and not at all where
// that is not wanted.
func TestStaleOnceADay(t *testing.T) {
	w, target, tmp := staleSite(t)
	now := time.Now().Add(staleAge + time.Hour)
	w.Clock = func() time.Time { return now }
	again := func() {
		if err := os.WriteFile(filepath.Join(tmp, "crashed"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{0, 1}, {staleEvery - time.Second, 0}, {time.Second, 1}, {0, 0}} {
		again()
		now = now.Add(step.pass)
		if told := tidied(t, w, target); len(told) != step.want {
			t.Errorf("%v later: %+v", step.pass, told)
		}
	}
	w.RemoveStale = false
	now = now.Add(2 * staleEvery)
	if told := tidied(t, w, target); len(told) > 0 {
		t.Errorf("not asked for: %+v", told)
	}
}

// Many files go in several looks, each after a delivery; an error ends a look and is
// told.
func TestStaleMany(t *testing.T) {
	w, target, tmp := staleSite(t)
	for i := range staleRemovals {
		if err := os.WriteFile(filepath.Join(tmp, fmt.Sprint("more", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if told := tidied(t, w, target); len(told) != 1 || told[0].Removed != staleRemovals {
		t.Errorf("%+v", told)
	}
	w.Before = func(op, _ string) error {
		if op == OpStale {
			return syscall.EIO
		}
		return nil
	}
	if told := tidied(t, w, target); len(told) != 1 || told[0].Removed != 0 || !errors.Is(told[0].Err, syscall.EIO) {
		t.Errorf("%+v", told)
	}
}

// A tmp/ that leads elsewhere is left alone, and so are the files there.
func TestStaleThroughLink(t *testing.T) {
	w, target, tmp := staleSite(t)
	elsewhere := filepath.Join(target.Root, "elsewhere")
	if err := os.Rename(tmp, elsewhere); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere", tmp); err != nil {
		t.Fatal(err)
	}
	if told := tidied(t, w, target); len(told) != 1 || told[0].Removed != 0 || told[0].Err == nil {
		t.Errorf("%+v", told)
	}
	if left := entries(t, elsewhere); len(left) != 4 {
		t.Errorf("left are %q", left)
	}
}

// It is done as the owner, so that his rights bound it; and not in the directory of a
// third party, who could wait for names to appear in it.
func TestStaleAsOwner(t *testing.T) {
	needRoot(t, "writing as another user")
	w, target, tmp := staleSite(t)
	const alice, bob = 64101, 64102
	if err := os.Chmod(target.Root, 0o711); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "new", "cur", "tmp"} {
		if err := os.Chown(filepath.Join(target.Root, "Maildir", dir), alice, alice); err != nil {
			t.Fatal(err)
		}
	}
	target.Owner = &Owner{UID: alice, GID: alice}
	if err := os.Chmod(tmp, 0o500); err != nil { // root could remove files from it all the same
		t.Fatal(err)
	}
	if told := tidied(t, w, target); len(told) != 1 || told[0].Removed != 0 || !errors.Is(told[0].Err, syscall.EACCES) {
		t.Errorf("%+v", told)
	}
	now := time.Now().Add(2*staleAge + staleEvery)
	w.Clock = func() time.Time { return now }
	if err := os.Chown(tmp, bob, bob); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(tmp, 0o777); err != nil {
		t.Fatal(err)
	}
	if told := tidied(t, w, target); len(told) > 0 {
		t.Errorf("%+v", told)
	}
	if err := os.Chown(tmp, alice, alice); err != nil {
		t.Fatal(err)
	}
	now = now.Add(staleEvery)
	if told := tidied(t, w, target); len(told) != 1 || told[0].Removed != 1 {
		t.Errorf("%+v", told)
	}
}

// The memory of what was looked at is bounded, and so is the number of looks.
func TestStaleKeeper(t *testing.T) {
	var k staleKeeper
	now := time.Now()
	for i := range 3 * staleSeen {
		if !k.due(fmt.Sprint(i), now) {
			t.Fatal("not due")
		}
		k.done(fmt.Sprint(i), false)
		if len(k.seen) > staleSeen {
			t.Fatalf("%d are remembered", len(k.seen))
		}
	}
	for i := range staleLooks {
		if !k.due(fmt.Sprint("hangs", i), now) {
			t.Fatal("not due")
		}
	}
	if k.due("x", now) {
		t.Error("one look too many")
	}
	k.done("hangs0", true)
	if !k.due("hangs0", now) {
		t.Error("not due again")
	}
	k.done("hangs0", false)
	if !k.due("x", now.Add(-time.Hour)) {
		t.Error("a clock that was set back ends the looks")
	}
}
