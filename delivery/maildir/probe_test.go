package maildir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// listing is every file below dir with its mode and time of change.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		b.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestProbe(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"full/Maildir/new", "full/Maildir/tmp", "full/Maildir/cur", "full/Maildir/.lists/new", "full/Maildir/.lists/tmp", "full/Maildir/.lists/cur", "half"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("full", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		target Target
		folder string
		makes  string
		err    error
	}{
		{"there", Target{Root: root, Path: "full/Maildir"}, "", "", nil},
		{"folder", Target{Root: root, Path: "full/Maildir", Folder: ".lists"}, ".lists", "", nil},
		{"no such folder", Target{Root: root, Path: "full/Maildir", Folder: ".none"}, "", "", nil},
		{"to be made", Target{Root: root, Path: "half/Maildir"}, "", "/half/Maildir", nil},
		{"all to be made", Target{Root: root, Path: "a/b"}, "", "/a", nil},
		{"no root", Target{Root: root + "/none", Path: "Maildir"}, "", "", ErrRoot},
		{"link", Target{Root: root, Path: "link/Maildir"}, "", "", syscall.ELOOP},
		{"bad path", Target{Root: root, Path: "../x"}, "", "", ErrPath},
		{"root", Target{Root: root, Path: "x", Owner: &Owner{}}, "", "", ErrOwner},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := listing(t, root)
			p := (&Writer{}).Probe(t.Context(), test.target)
			if !errors.Is(p.Err, test.err) || p.Folder != test.folder || strings.TrimPrefix(p.Makes, root) != test.makes || test.err == nil && p.Free == 0 {
				t.Errorf("got %+v", p)
			}
			if after := listing(t, root); after != before {
				t.Errorf("changed from\n%s to\n%s", before, after)
			}
		})
	}
}

// The owner's rights decide, and what is missing is named.
func TestProbeAsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot act as another user")
	}
	root := t.TempDir()
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(root, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	owner := &Owner{UID: 23456, GID: 23456}
	p := (&Writer{}).Probe(t.Context(), Target{Owner: owner, Root: home, Path: "Maildir"})
	var e *Error
	if !errors.As(p.Err, &e) || !errors.Is(e, syscall.EACCES) || !strings.HasPrefix(e.Missing, "missing +w on "+home+",") || e.UID != owner.UID {
		t.Errorf("got %v", p.Err)
	}
	if err := os.Chown(home, 23456, 23456); err != nil {
		t.Fatal(err)
	}
	if p = (&Writer{}).Probe(t.Context(), Target{Owner: owner, Root: home, Path: "Maildir"}); p.Err != nil || p.Makes != home+"/Maildir" {
		t.Errorf("got %+v", p)
	}
}
