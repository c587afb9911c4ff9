package maildir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gomaildir "github.com/emersion/go-maildir"
)

// deliver writes one copy of data.
func deliver(t testing.TB, w *Writer, target Target, data string) Result {
	t.Helper()
	return deliverBody(t, w, target, memory(data))
}

func deliverBody(t testing.TB, w *Writer, target Target, b Body) Result {
	t.Helper()
	var got []Result
	w.Deliver(context.Background(), b, []Target{target}, func(i int, r Result) { got = append(got, r) })
	if len(got) != 1 {
		t.Fatalf("done was called %d times, want 1", len(got))
	}
	return got[0]
}

// delivered is deliver for a copy that has to arrive.
func delivered(t testing.TB, w *Writer, target Target, data string) Result {
	t.Helper()
	r := deliver(t, w, target, data)
	if r.Err != nil {
		t.Fatalf("not delivered: %v", r.Err)
	}
	return r
}

func memory(data string) Body {
	return Body{Data: []byte(data), Size: int64(len(data)), Lines: lines([]byte(data))}
}

// spooled returns the body in a file in dir, whose offset is not at the start.
func spooled(t testing.TB, dir, data string) Body {
	t.Helper()
	f, err := os.CreateTemp(dir, "spool")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
	return Body{File: f, Size: int64(len(data)), Lines: lines([]byte(data))}
}

// messages reads new/ with a reader that is not ours, and leaves it as it is.
func messages(t testing.TB, mailbox string) map[string]string {
	t.Helper()
	found := map[string]string{}
	// Unseen moves to cur/, so it gets a copy of the mailbox.
	replica := filepath.Join(memoryDir(t), "replica")
	if err := os.CopyFS(replica, os.DirFS(mailbox)); err != nil {
		t.Fatal(err)
	}
	msgs, err := gomaildir.Dir(replica).Unseen()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		found[m.Key()] = string(b)
	}
	return found
}

// memoryDir returns a directory of the test in memory if there is one, for
// tests that ask for many directories and syncs and nothing of a disk.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "maildir-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// entries lists a directory; a missing one is empty.
func entries(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// wantEmpty checks that a failed delivery left no file in a mailbox.
func wantEmpty(t testing.TB, mailbox string) {
	t.Helper()
	for _, sub := range []string{"new", "tmp", "cur"} {
		if left := entries(t, filepath.Join(mailbox, sub)); len(left) > 0 {
			t.Errorf("left in %s/: %v", sub, left)
		}
	}
}

// wantError checks the outcome of a copy that must fail with cause.
func wantError(t testing.TB, r Result, cause error, text ...string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(r.Err, &e) || !errors.Is(r.Err, cause) {
		t.Fatalf("error is %v, want an *Error of %v", r.Err, cause)
	}
	for _, s := range text {
		if !strings.Contains(e.Error(), s) {
			t.Errorf("error %q does not say %q", e, s)
		}
	}
	if r.File != "" {
		t.Errorf("a failed delivery names the file %s", r.File)
	}
	return e
}

func needRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root: %s", why)
	}
}

func umask(t testing.TB, mask int) {
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

// classicOnly makes a writer take the way by tmp/, as on a file system without
// unnamed files.
func classicOnly(op, _ string) error {
	if op == OpUnnamed {
		return syscall.EOPNOTSUPP
	}
	return nil
}

// ways runs a test for each way of making a file and naming it.
func ways(t *testing.T, f func(t *testing.T, w *Writer)) {
	t.Run("unnamed", func(t *testing.T) { f(t, &Writer{}) })
	t.Run("unnamed, by path", func(t *testing.T) {
		w := &Writer{}
		w.linksByPath.Store(true)
		f(t, w)
	})
	t.Run("classic", func(t *testing.T) { f(t, &Writer{Before: classicOnly}) })
}

func TestContent(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 200_000) // 3.2 MB
	for name, data := range map[string]string{
		"lf":         "Subject: a\n\nbody\n",
		"crlf":       "Subject: a\r\n\r\nbody\r\n",
		"mixed":      "Subject: a\n\r\nbare\rcr\n\r\n",
		"no newline": "Subject: a\n\nend",
		"octets":     "\x00\xff\xfe\n.\n..\n\x1a",
		"empty":      "",
		"long":       long,
	} {
		for _, header := range []string{"", "Return-Path: <a@b>\n", "Return-Path: <a@b>\r\n"} {
			ways(t, func(t *testing.T, w *Writer) {
				root := t.TempDir()
				bodies := map[string]Body{"memory": memory(data), "file": spooled(t, root, data)}
				if shm, err := os.MkdirTemp("/dev/shm", "maildir"); err == nil { // another file system
					t.Cleanup(func() { os.RemoveAll(shm) })
					bodies["other file system"] = spooled(t, shm, data)
				}
				for kind, b := range bodies {
					box := "box " + kind
					r := deliverBody(t, w, Target{Root: root, Path: box, Header: []byte(header)}, b)
					if r.Err != nil {
						t.Fatalf("%s, %s: %v", name, kind, r.Err)
					}
					got, err := os.ReadFile(r.File)
					if err != nil {
						t.Fatal(err)
					}
					if want := header + data; string(got) != want || r.Size != int64(len(want)) {
						t.Errorf("%s, %s: %d octets stored and %d reported, want %d", name, kind, len(got), r.Size, len(want))
					}
					read := messages(t, filepath.Join(root, box))
					if len(read) != 1 || read[filepath.Base(r.File)] != header+data {
						t.Errorf("%s, %s: an independent reader finds %d messages, or another one", name, kind, len(read))
					}
					if left := entries(t, filepath.Join(root, box, "tmp")); len(left) > 0 {
						t.Errorf("%s, %s: left in tmp/: %v", name, kind, left)
					}
				}
			})
		}
	}
}

// A body that ends early or cannot be read is an error and not a shorter message.
func TestBodyUnreadable(t *testing.T) {
	root := t.TempDir()
	short := spooled(t, root, "only this")
	short.Size += 10
	r := deliverBody(t, &Writer{}, Target{Root: root, Path: "box"}, short)
	wantError(t, r, io.ErrUnexpectedEOF, "9 of 19 octets")
	wantEmpty(t, filepath.Join(root, "box"))

	f, err := os.OpenFile(filepath.Join(root, "writeonly"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("secret"); err != nil {
		t.Fatal(err)
	}
	r = deliverBody(t, &Writer{}, Target{Root: root, Path: "box"}, Body{File: f, Size: 6})
	wantError(t, r, syscall.EBADF, "read body")
	wantEmpty(t, filepath.Join(root, "box"))

	r = deliverBody(t, &Writer{}, Target{Root: root, Path: "box"}, Body{Data: []byte("abc"), Size: 2})
	if r.Err == nil {
		t.Error("a body with a wrong size was taken")
	}
}

// Each target has its own result, found by its index, whatever the others do.
func TestDeliverMany(t *testing.T) {
	root := t.TempDir()
	var targets []Target
	for i := range 200 {
		tg := Target{Root: root, Path: "box", Header: []byte{byte(i), '\n'}}
		if i%3 == 0 {
			tg.Root = filepath.Join(root, "missing")
		}
		targets = append(targets, tg)
	}
	w := &Writer{Parallel: 7}
	var mu sync.Mutex
	calls := make([]int, len(targets))
	w.Deliver(context.Background(), memory("body\n"), targets, func(i int, r Result) {
		mu.Lock()
		defer mu.Unlock()
		calls[i]++
		if i%3 == 0 {
			if !errors.Is(r.Err, ErrRoot) {
				t.Errorf("target %d: %v", i, r.Err)
			}
			return
		}
		got, err := os.ReadFile(r.File)
		if err != nil || !bytes.Equal(got, append([]byte{byte(i), '\n'}, "body\n"...)) {
			t.Errorf("target %d: %q, %v, %v", i, got, err, r.Err)
		}
	})
	for i, n := range calls {
		if n != 1 {
			t.Errorf("target %d: done called %d times", i, n)
		}
	}
	w.Deliver(context.Background(), memory(""), nil, func(int, Result) { t.Error("done without a target") })
}

// No more than Parallel copies are written at a time, by all calls together,
// and no copy has more than four descriptors.
func TestBounds(t *testing.T) {
	const parallel, calls = 3, 4
	var mu sync.Mutex
	running, most, descriptors := 0, 0, 0
	base := len(entries(t, "/proc/self/fd"))
	w := &Writer{Parallel: parallel, Before: func(op, _ string) error {
		mu.Lock()
		defer mu.Unlock()
		switch op {
		case OpRoot:
			running++
			most = max(most, running)
		case OpSyncDir:
			running--
		}
		descriptors = max(descriptors, len(entries(t, "/proc/self/fd"))-base)
		return classicOnly(op, "")
	}}
	targets := make([]Target, 10)
	for i := range targets {
		targets[i] = Target{Root: t.TempDir(), Path: "a/b"}
	}
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			w.Deliver(context.Background(), memory("x\n"), targets, func(_ int, r Result) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			})
		})
	}
	wg.Wait()
	if most > parallel*len(targets) {
		t.Errorf("%d copies at a time, want at most %d", most, parallel*len(targets))
	}
	if most := 4 * parallel * len(targets); descriptors > most {
		t.Errorf("%d descriptors, want at most %d", descriptors, most)
	}
	if now := len(entries(t, "/proc/self/fd")); now > base {
		t.Errorf("%d descriptors were not closed", now-base)
	}
}

// A deadline before the slot is free, or before the name, means not delivered.
func TestDeadline(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	w := &Writer{}
	w.Deliver(ctx, memory("x"), []Target{{Root: root, Path: "box"}}, func(_ int, r Result) {
		wantError(t, r, context.DeadlineExceeded)
	})
	if left := entries(t, root); len(left) > 0 {
		t.Errorf("made after the deadline: %v", left)
	}

	// All slots are taken by a copy that waits for the end of the test.
	release, holding := make(chan struct{}), make(chan struct{})
	w = &Writer{Parallel: 1, Before: func(op, path string) error {
		if op == OpSync || op == OpWriteBack { // one of them, as the file system is
			close(holding)
			<-release
		}
		return nil
	}}
	var wg sync.WaitGroup
	wg.Go(func() { deliver(t, w, Target{Root: root, Path: "slow"}, "x") })
	<-holding
	w.Deliver(ctx, memory("x"), []Target{{Root: root, Path: "box"}}, func(_ int, r Result) {
		if e := wantError(t, r, context.DeadlineExceeded); e.Op != OpWait && e.Op != OpRoot {
			t.Errorf("op is %q", e.Op)
		}
	})
	close(release)
	wg.Wait()
	if got := messages(t, filepath.Join(root, "slow")); len(got) != 1 {
		t.Errorf("%d messages, want 1", len(got))
	}
}

func TestDurabilityText(t *testing.T) {
	for _, d := range []Durability{Full, FileOnly, None} {
		var got Durability
		if err := got.UnmarshalText([]byte(d.String())); err != nil || got != d {
			t.Errorf("%v read as %v, %v", d, got, err)
		}
	}
	var d Durability
	if err := d.UnmarshalText([]byte("half")); err == nil || !strings.Contains(err.Error(), "full, file, none") {
		t.Errorf("error is %v", err)
	}
	if s := Durability(9).String(); s != "durability(9)" {
		t.Error(s)
	}
}
