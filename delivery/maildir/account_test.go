package maildir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAccount: what maildirsize says, or else what is there; nothing is written.
func TestAccount(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100, Messages: 5}}
	ask := func(want Account) {
		t.Helper()
		before, _ := os.ReadFile(filepath.Join(box, sizeFile))
		got, err := w.Account(t.Context(), target)
		if err != nil || got.Usage != want.Usage || got.Limit.definition() != want.Limit.definition() || got.Counted != want.Counted || got.Since.IsZero() != want.Since.IsZero() {
			t.Errorf("%+v (%v), want %+v", got, err, want)
		}
		if after, _ := os.ReadFile(filepath.Join(box, sizeFile)); string(after) != string(before) {
			t.Errorf("it wrote %q", after)
		}
	}
	limit := *target.Quota
	ask(Account{Limit: limit}) // a mailbox that is not there is empty
	if left := entries(t, root); len(left) > 0 {
		t.Errorf("made %v", left)
	}
	delivered(t, w, target, "0123456789")
	ask(Account{Usage: Usage{10, 1}, Limit: limit})
	if err := os.WriteFile(filepath.Join(box, sizeFile), []byte("100S,5C\n90 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask(Account{Usage: Usage{90, 2}, Limit: limit})
	target.Quota = &Quota{} // no limit of ours: that of the file
	ask(Account{Usage: Usage{90, 2}, Limit: limit})
	target.Quota = &Quota{Octets: 7}
	ask(Account{Usage: Usage{90, 2}, Limit: Quota{Octets: 7}})
	for _, bad := range []string{"", "spoilt"} {
		if err := os.WriteFile(filepath.Join(box, sizeFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		ask(Account{Usage: Usage{10, 1}, Limit: Quota{Octets: 7}, Counted: true})
	}
	if err := os.WriteFile(filepath.Join(box, overFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ask(Account{Usage: Usage{10, 1}, Limit: Quota{Octets: 7}, Counted: true, Since: time.Now()})
	target.Root = root + "/none"
	if _, err := w.Account(t.Context(), target); !errors.Is(err, ErrRoot) {
		t.Error(err)
	}
	target.Path = ".."
	if _, err := w.Account(t.Context(), target); !errors.Is(err, ErrPath) {
		t.Error(err)
	}
}

// TestRecount: maildirsize says what is there, in all folders, and mail is not refused
// any more where there is room.
func TestRecount(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir"}
	recount := func(want Account) {
		t.Helper()
		got, err := w.Recount(t.Context(), target)
		if err != nil || got.Usage != want.Usage || got.Limit.definition() != want.Limit.definition() || !got.Counted {
			t.Errorf("%+v (%v), want %+v", got, err, want)
		}
	}
	if got, err := w.Recount(t.Context(), target); err != nil || got.Usage != (Usage{}) {
		t.Errorf("no mailbox: %+v, %v", got, err)
	}
	delivered(t, w, target, "0123456789")
	delivered(t, w, Target{Root: root, Path: "Maildir", Folder: ".a.b", MakeFolder: true}, "0123456789")
	recount(Account{Usage: Usage{20, 2}})
	if _, err := os.Stat(filepath.Join(box, sizeFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("accounts of a mailbox without limits")
	}
	for name, text := range map[string]string{sizeFile: "spoilt", overFile: ""} {
		if err := os.WriteFile(filepath.Join(box, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target.Quota = &Quota{Octets: 15}
	recount(Account{Usage: Usage{20, 2}, Limit: *target.Quota})
	wantSizes(t, box, "15S|20 2")
	if _, err := os.Stat(filepath.Join(box, overFile)); err != nil {
		t.Errorf("still full: %v", err)
	}
	target.Quota = &Quota{Octets: 100}
	recount(Account{Usage: Usage{20, 2}, Limit: *target.Quota})
	wantSizes(t, box, "100S|20 2")
	if _, err := os.Stat(filepath.Join(box, overFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is room: %v", err)
	}
	target.Quota = nil // the limit of the file stays
	recount(Account{Usage: Usage{20, 2}, Limit: Quota{Octets: 100}})
	wantSizes(t, box, "100S|20 2")

	// A mailbox that changes while it is counted is counted again; one that never rests
	// is not written.
	target.Quota = &Quota{Octets: 100}
	changes, later := 1, time.Now()
	w.Before = func(op, path string) error {
		if op == OpSeek && filepath.Base(path) == "cur" && filepath.Dir(path) == box && changes > 0 {
			changes--
			delivered(t, &Writer{Hostname: "mx"}, Target{Root: root, Path: "Maildir"}, "0123456789")
			// The kernel's time may not have moved on.
			later = later.Add(time.Second)
			if err := os.Chtimes(filepath.Join(box, "new"), later, later); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	recount(Account{Usage: Usage{30, 3}, Limit: *target.Quota})
	wantSizes(t, box, "100S|30 3")
	changes = 1000
	if _, err := w.Recount(t.Context(), target); !errors.Is(err, ErrChanging) {
		t.Error(err)
	}
	changes = 0
	w.Before = func(op, path string) error {
		if op == OpRename {
			return syscall.EIO
		}
		return nil
	}
	if _, err := w.Recount(t.Context(), target); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
}

// It is the owner who reads and writes.
func TestRecountAsOwner(t *testing.T) {
	needRoot(t, "writing as another user")
	root := memoryDir(t)
	if err := os.Chown(root, 64101, 64201); err != nil {
		t.Fatal(err)
	}
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100}, Owner: &Owner{UID: 64101, GID: 64201}}
	delivered(t, w, target, "0123456789")
	if err := os.Remove(filepath.Join(root, "Maildir", sizeFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Recount(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(root, "Maildir", sizeFile))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != 64101 {
		t.Errorf("%v, %v", info, err)
	}
	target.Owner = &Owner{UID: 64102, GID: 64202}
	if _, err := w.Recount(t.Context(), target); !errors.Is(err, syscall.EACCES) {
		t.Error(err)
	}
}

// The owner of a mailbox can make any number of folders: it is no reason to hold them all.
func TestManyFolders(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	for i := range countedFolders + 2 {
		if err := os.MkdirAll(filepath.Join(box, fmt.Sprint(".f", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := &Writer{Hostname: "mx"}
	r := delivered(t, w, Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100}}, "x")
	if r.Warning == nil || !strings.Contains(r.Warning.Error(), "only 16384 folders are counted") {
		t.Errorf("%v", r.Warning)
	}
	wantSizes(t, box, "100S|0 0|1 1")
}
