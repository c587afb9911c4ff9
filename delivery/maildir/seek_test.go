package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A copy is found by its token wherever a delivery or a reader has put it, and is
// not written again.
func TestSeek(t *testing.T) {
	const token = "0123456789abcdef"
	for _, where := range []string{"new", "cur"} {
		root := memoryDir(t)
		w := &Writer{Hostname: "mx"}
		target := Target{Root: root, Path: "Maildir", Token: token}
		first := delivered(t, w, target, "one\n")
		if !strings.Contains(filepath.Base(first.File), "R"+token+".mx,") || first.Found {
			t.Fatalf("%+v", first)
		}
		// Others are no hindrance, however many.
		for range 600 {
			delivered(t, w, Target{Root: root, Path: "Maildir"}, "x\n")
		}
		if where == "cur" {
			seen := filepath.Join(root, "Maildir/cur", filepath.Base(first.File)+":2,S")
			if err := os.Rename(first.File, seen); err != nil {
				t.Fatal(err)
			}
			first.File = seen
		}
		before := len(entries(t, filepath.Join(root, "Maildir/new")))
		var synced []string
		w.Before = func(op, path string) error {
			if op == OpSyncDir || op == OpSyncNamed {
				synced = append(synced, path)
			}
			return nil
		}
		target.Seek = true
		again := delivered(t, w, target, "one\n")
		if !again.Found || again.File != first.File {
			t.Errorf("%s: %+v, want %s", where, again, first.File)
		}
		if want := []string{first.File, filepath.Dir(first.File)}; !slices.Equal(synced, want) {
			t.Errorf("%s: synced %q, want %q", where, synced, want)
		}
		if n := len(entries(t, filepath.Join(root, "Maildir/new"))); n != before {
			t.Errorf("%s: %d messages, were %d", where, n, before)
		}
		// One that is not there is written, under the same token.
		target.Token = "f0"
		if r := delivered(t, w, target, "two\n"); r.Found || !strings.Contains(r.File, "Rf0.mx,") {
			t.Errorf("%s: %+v", where, r)
		}
	}
}

// A mailbox that cannot be looked into is no reason to write a second copy.
func TestSeekErrors(t *testing.T) {
	root := memoryDir(t)
	target := Target{Root: root, Path: "Maildir", Token: "aa", Seek: true}
	for _, op := range []string{OpSeek, OpOpen, OpSyncNamed, OpSyncDir} {
		w := &Writer{Hostname: "mx"}
		delivered(t, w, Target{Root: root, Path: "Maildir", Token: "aa"}, "x\n")
		n := 0
		w.Before = func(o, path string) error {
			if o == op {
				if n++; op != OpOpen || n == 2 { // the first opens new/ to write
					return syscall.EIO
				}
			}
			return nil
		}
		wantError(t, deliver(t, w, target, "x\n"), syscall.EIO)
		for _, f := range entries(t, filepath.Join(root, "Maildir/new")) {
			if err := os.Remove(filepath.Join(root, "Maildir/new", f)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A mailbox without cur/ has nothing there.
	if err := os.Remove(filepath.Join(root, "Maildir/cur")); err != nil {
		t.Fatal(err)
	}
	if r := delivered(t, &Writer{Hostname: "mx"}, target, "x\n"); r.Found {
		t.Error("found in an empty mailbox")
	}
	for _, token := range []string{"a/b", "..", "A", strings.Repeat("a", 33), "a,S=1"} {
		target.Token = token
		if r := deliver(t, &Writer{}, target, "x\n"); r.Err == nil {
			t.Errorf("token %q was taken", token)
		}
	}
	target.Token = ""
	if r := deliver(t, &Writer{}, target, "x\n"); r.Err == nil {
		t.Error("nothing to look for")
	}
}

// Half a copy, or something else under its name, is none.
func TestSeekHalf(t *testing.T) {
	for what, spoil := range map[string]func(name string) error{
		"short": func(name string) error { return os.Truncate(name, 1) },
		"FIFO": func(name string) error {
			return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600))
		},
	} {
		root := memoryDir(t)
		target := Target{Root: root, Path: "Maildir", Token: "aa"}
		if err := spoil(delivered(t, &Writer{}, target, "one\n").File); err != nil {
			t.Fatal(err)
		}
		target.Seek = true
		r := deliver(t, &Writer{}, target, "one\n")
		if r.Found || what == "short" && r.Err != nil {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// A reader that renames the copy while it is looked for does not hide it.
func TestSeekMoved(t *testing.T) {
	root := memoryDir(t)
	target := Target{Root: root, Path: "Maildir", Token: "aa"}
	at := delivered(t, &Writer{}, target, "one\n").File
	flags := []string{"", "F", "FS"} // one more than there are looks would hide it
	w := &Writer{}
	w.Before = func(op, path string) error {
		if op != OpOpen || path != at || len(flags) == 1 {
			return nil
		}
		flags = flags[1:]
		to := filepath.Join(root, "Maildir/cur", strings.TrimSuffix(filepath.Base(at), ":2,F")+":2,"+flags[0])
		err := os.Rename(at, to)
		at = to
		return err
	}
	target.Seek = true
	if r := delivered(t, w, target, "one\n"); !r.Found || r.File != at {
		t.Errorf("%+v, want %s", r, at)
	}
}
