package maildir

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tree returns all directories below root with their modes.
func tree(t *testing.T, root string) map[string]fs.FileMode {
	t.Helper()
	got := map[string]fs.FileMode{}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		info, err := e.Info()
		if e.IsDir() {
			rel, _ := filepath.Rel(root, p)
			got[rel] = info.Mode().Perm()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCreate(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o177} {
		for _, c := range []struct {
			w         *Writer
			dir, file fs.FileMode
		}{
			{&Writer{}, 0o700, 0o600},
			{&Writer{DirMode: 0o750, FileMode: 0o640}, 0o750, 0o640},
			{&Writer{DirMode: 0o770, FileMode: 0o660, Before: classicOnly}, 0o770, 0o660},
		} {
			t.Run(fmt.Sprintf("umask %#o, modes %#o %#o", mask, c.dir, c.file), func(t *testing.T) {
				root := t.TempDir()
				umask(t, mask)
				r := delivered(t, c.w, Target{Root: root, Path: "example.org/bob"}, "x\n")
				got := tree(t, root)
				want := []string{"example.org", "example.org/bob", "example.org/bob/new", "example.org/bob/cur", "example.org/bob/tmp"}
				for _, dir := range want {
					if got[dir] != c.dir {
						t.Errorf("%s has mode %#o, want %#o", dir, got[dir], c.dir)
					}
				}
				if len(got) != len(want) {
					t.Errorf("directories are %v", got)
				}
				info, err := os.Stat(r.File)
				if err != nil || info.Mode() != c.file {
					t.Errorf("file has mode %#o, want %#o (%v)", info.Mode(), c.file, err)
				}
			})
		}
	}
}

// The root is the Maildir itself where the path is empty.
func TestRootIsMaildir(t *testing.T) {
	root := t.TempDir()
	delivered(t, &Writer{}, Target{Root: root}, "x\n")
	delivered(t, &Writer{}, Target{Root: root}, "y\n")
	if got := messages(t, root); len(got) != 2 {
		t.Errorf("messages are %v", got)
	}
}

// Directories of a Maildir that went missing come back; modes of those that
// exist are the user's affair.
func TestPartialMaildir(t *testing.T) {
	ways(t, func(t *testing.T, w *Writer) {
		for _, missing := range []string{"new", "tmp", "cur"} {
			root := t.TempDir()
			box := filepath.Join(root, "box")
			for _, sub := range []string{"new", "tmp", "cur"} {
				if sub != missing {
					if err := os.MkdirAll(filepath.Join(box, sub), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			delivered(t, w, Target{Root: root, Path: "box"}, "x\n")
			if got := tree(t, root)["box"]; got != 0o755 {
				t.Errorf("mode of an existing directory is %#o now", got)
			}
			if got := entries(t, filepath.Join(box, "new")); len(got) != 1 {
				t.Errorf("new/ holds %v", got)
			}
		}
	})
}

// Nothing is made where the root is missing: it may be a mount point.
func TestRootMustExist(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantError(t, deliver(t, &Writer{}, Target{Root: filepath.Join(dir, "home/bob"), Path: "Maildir"}, "x"), ErrRoot, "home/bob")
	wantError(t, deliver(t, &Writer{}, Target{Root: file, Path: "Maildir"}, "x"), ErrRoot, "is a file and not a directory")
	if got := entries(t, dir); len(got) != 1 {
		t.Errorf("made: %v", got)
	}
	for _, tg := range []Target{{Root: ""}, {Root: "relative"}, {Root: dir, Path: "../x"}, {Root: dir, Path: "/x"}, {Root: dir, Path: "a\x00"}} {
		e := wantError(t, deliver(t, &Writer{}, tg, "x"), ErrPath)
		if e.Op != OpCheck {
			t.Errorf("%+v: op is %q", tg, e.Op)
		}
	}
	// A link in the root is the administrator's.
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	delivered(t, &Writer{}, Target{Root: filepath.Join(dir, "link"), Path: "Maildir"}, "x\n")
}

// A symbolic link below the root is never followed, wherever it stands and
// wherever it points.
func TestSymlinks(t *testing.T) {
	ways(t, func(t *testing.T, w *Writer) {
		for _, at := range []string{"a", "a/box", "a/box/new", "a/box/tmp", "a/box/.folder", "a/box/.folder/new"} {
			for _, kind := range []string{"absolute", "relative", "dangling"} {
				if at == "a/box/tmp" && w.Before == nil {
					continue // not looked at
				}
				root, outside := t.TempDir(), t.TempDir()
				for _, dir := range []string{outside, filepath.Join(root, "elsewhere")} {
					for _, sub := range []string{"new", "cur", "tmp", "box/new", "box/cur", "box/tmp"} {
						if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
							t.Fatal(err)
						}
					}
				}
				for _, sub := range []string{"new", "cur", "tmp", ".folder/new", ".folder/cur", ".folder/tmp"} {
					if err := os.MkdirAll(filepath.Join(root, "a/box", sub), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				link := filepath.Join(root, at)
				to := outside
				switch kind {
				case "relative": // stays below the root, and is refused all the same
					to, _ = filepath.Rel(filepath.Dir(link), filepath.Join(root, "elsewhere"))
				case "dangling":
					to = filepath.Join(outside, "nothing")
				}
				if err := os.RemoveAll(link); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(to, link); err != nil {
					t.Fatal(err)
				}
				tg := Target{Root: root, Path: "a/box"}
				if filepath.Base(filepath.Dir(at)) == ".folder" || filepath.Base(at) == ".folder" {
					tg.Folder = ".folder"
				}
				r := deliver(t, w, tg, "x\n")
				if r.Err == nil {
					t.Errorf("%s link at %s: delivered to %s", kind, at, r.File)
					continue
				}
				wantError(t, r, syscall.ELOOP, link+" is a symbolic link")
				for _, dir := range []string{outside, filepath.Join(root, "elsewhere")} {
					err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
						if err == nil && !e.IsDir() {
							t.Errorf("%s link at %s: %s was made", kind, at, p)
						}
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				if got := entries(t, filepath.Dir(filepath.Join(outside, "nothing"))); len(got) != 4 {
					t.Errorf("made where a link points: %v", got)
				}
			}
		}
	})
}

// What stands in a directory's place is refused by name, without blocking.
func TestObstacles(t *testing.T) {
	kinds := map[string]func(path string) error{
		"file": func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"FIFO": func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"socket": func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p, Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
	}
	if os.Geteuid() == 0 {
		kinds["device"] = func(p string) error { return syscall.Mknod(p, syscall.S_IFCHR|0o600, 5<<8) }
	}
	ways(t, func(t *testing.T, w *Writer) {
		for kind, make := range kinds {
			for _, at := range []string{"box", "box/new", "box/tmp", "box/.folder/new"} {
				if at == "box/tmp" && w.Before == nil {
					continue
				}
				root, err := os.MkdirTemp("", "md") // short, for the socket's path
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.RemoveAll(root) })
				for _, sub := range []string{"box/new", "box/tmp", "box/cur", "box/.folder/new"} {
					if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				p := filepath.Join(root, at)
				if err := os.RemoveAll(p); err != nil {
					t.Fatal(err)
				}
				if err := make(p); err != nil {
					t.Fatal(err)
				}
				tg := Target{Root: root, Path: "box"}
				if at == "box/.folder/new" {
					tg.Folder = ".folder"
				}
				wantError(t, deliver(t, w, tg, "x"), syscall.ENOTDIR, fmt.Sprintf("%s is a %s and not a directory", p, kind))
			}
		}
	})
}

func TestFolder(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{".lists/new", ".lists/tmp", ".lists/cur", ".ssh", ".broken/cur"} {
		if err := os.MkdirAll(filepath.Join(root, "box", dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "box", ".file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ways(t, func(t *testing.T, w *Writer) {
		for folder, want := range map[string]string{
			"": "", ".lists": ".lists", ".missing": "", ".ssh": "", ".broken": "", ".file": "",
			".lists/../../x": "", "..": "", ".": "", ".lists.": "", "lists": "",
		} {
			r := delivered(t, w, Target{Root: root, Path: "box", Folder: folder}, "x\n")
			if r.Folder != want || filepath.Dir(r.File) != filepath.Join(root, "box", want, "new") {
				t.Errorf("folder %q: filed in %q as %s", folder, r.Folder, r.File)
			}
		}
	})
	if got := entries(t, filepath.Join(root, "box/.ssh")); len(got) > 0 {
		t.Errorf("a directory that is no folder got %v", got)
	}
	if got := entries(t, filepath.Join(root, "box/.missing")); len(got) > 0 {
		t.Errorf("a missing folder was made: %v", got)
	}
}

// Many writers at once make one Maildir and all deliver.
func TestCreateRace(t *testing.T) {
	for range 20 {
		root := t.TempDir()
		var wg sync.WaitGroup
		for i := range 16 {
			w := &Writer{Durability: Durability(i % 3)}
			wg.Go(func() { deliveredOrError(t, w, Target{Root: root, Path: "a/b/c"}) })
		}
		wg.Wait()
		if got := messages(t, filepath.Join(root, "a/b/c")); len(got) != 16 {
			t.Fatalf("%d messages, want 16", len(got))
		}
	}
}

// deliveredOrError may be called from any goroutine.
func deliveredOrError(t *testing.T, w *Writer, tg Target) {
	w.Deliver(t.Context(), memory("x\n"), []Target{tg}, func(_ int, r Result) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	})
}

// The way from the root to a young mailbox is synced once by each Writer, even
// if somebody else made it, for he may not have synced it yet; an old one is
// left alone.
func TestParentsSynced(t *testing.T) {
	root := t.TempDir()
	var synced []string
	record := func(op, p string) error {
		if op == OpSyncParent {
			rel, _ := filepath.Rel(root, p)
			synced = append(synced, rel)
		}
		return nil
	}
	check := func(what string, want ...string) {
		t.Helper()
		if fmt.Sprint(synced) != fmt.Sprint(want) {
			t.Errorf("%s: synced %q, want %q", what, synced, want)
		}
		synced = nil
	}
	w := &Writer{Before: record}
	tg := Target{Root: root, Path: "a/b"}
	delivered(t, w, tg, "x\n")
	check("created", ".", "a", "a/b")
	delivered(t, w, tg, "x\n")
	check("again")
	delivered(t, &Writer{Before: record}, tg, "x\n")
	check("young, made by another", ".", "a", "a/b")
	later := func() time.Time { return time.Now().Add(time.Hour) }
	delivered(t, &Writer{Before: record, Clock: later}, tg, "x\n")
	if len(synced) > 0 {
		t.Logf("no birth times on this file system: synced %q", synced)
		synced = nil
	}
	delivered(t, &Writer{Before: record, Durability: FileOnly}, Target{Root: root, Path: "c"}, "x\n")
	check("durability file")
	if err := os.RemoveAll(filepath.Join(root, "a/b/new")); err != nil {
		t.Fatal(err)
	}
	delivered(t, w, tg, "x\n")
	check("new/ made again", ".", "a", "a/b")
}
