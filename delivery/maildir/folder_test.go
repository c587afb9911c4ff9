package maildir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gomaildir "github.com/emersion/go-maildir"
)

func readText(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// A folder is made with all that readers expect of one, and subscribed to.
func TestMakeFolder(t *testing.T) {
	for name, subscribed := range map[string]struct{ before, after string }{
		"no subscriptions":      {"", "lists.go-nuts\n"},
		"others":                {"Sent\nDrafts\n", "Sent\nDrafts\nlists.go-nuts\n"},
		"last line without end": {"Sent", "Sent\nlists.go-nuts\n"},
		"version 2":             {"V\t2\n\nSent\n", "V\t2\n\nSent\nlists\tgo-nuts\n"},
		"already":               {"lists.go-nuts\nSent\n", "lists.go-nuts\nSent\n"},
		"already, version 2":    {"V\t2\n\nlists\tgo-nuts\n", "V\t2\n\nlists\tgo-nuts\n"},
		"a part of it":          {"lists\nlists.go-nuts2\n", "lists\nlists.go-nuts2\nlists.go-nuts\n"},
	} {
		t.Run(name, func(t *testing.T) {
			root := memoryDir(t)
			box := filepath.Join(root, "mail", "Maildir")
			if subscribed.before != "" {
				if err := os.MkdirAll(box, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(box, "subscriptions"), []byte(subscribed.before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w := &Writer{Hostname: "mx"}
			synced := map[string]bool{}
			w.Before = func(op, path string) error {
				if op == OpSyncParent || op == OpSyncDir {
					synced[path] = true
				}
				return nil
			}
			target := Target{Root: root, Path: "mail/Maildir", Folder: ".lists.go-nuts", MakeFolder: true}
			for range 2 {
				if r := delivered(t, w, target, "x\n"); r.Folder != ".lists.go-nuts" || r.Warning != nil {
					t.Errorf("%+v", r)
				}
			}
			folder := filepath.Join(box, ".lists.go-nuts")
			if n := len(messages(t, folder)); n != 2 {
				t.Errorf("%d messages", n)
			}
			if _, err := os.Stat(filepath.Join(folder, "maildirfolder")); err != nil {
				t.Error(err)
			}
			for _, sub := range []string{"new", "cur", "tmp"} {
				if info, err := os.Stat(filepath.Join(box, sub)); err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("%s of INBOX: %v, %v", sub, info, err)
				}
			}
			for _, dir := range []string{root, filepath.Join(root, "mail"), box, folder, filepath.Join(folder, "new")} {
				if !synced[dir] {
					t.Errorf("%s was not synced", dir)
				}
			}
			if got := readText(t, filepath.Join(box, "subscriptions")); got != subscribed.after {
				t.Errorf("subscriptions %q, want %q", got, subscribed.after)
			}
			if _, err := os.Stat(filepath.Join(box, "subscriptions.lock")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("lock: %v", err)
			}
		})
	}
}

// Where a folder cannot be made the mail goes to INBOX; where the attempt fails, it
// waits.
func TestMakeFolderNot(t *testing.T) {
	w := &Writer{Hostname: "mx"}
	for name, prepare := range map[string]func(box string) error{
		"a file":                func(box string) error { return os.WriteFile(box+"/.f", nil, 0o600) },
		"a directory of others": func(box string) error { return os.MkdirAll(box+"/.f/cache", 0o700) },
		"a symbolic link":       func(box string) error { return os.Symlink("/etc", box+"/.f") },
		"too many": func(box string) error {
			for i := range maxFolders {
				if err := os.Mkdir(fmt.Sprintf("%s/.x%d", box, i), 0o700); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		root := memoryDir(t)
		target := Target{Root: root, Path: "Maildir"}
		delivered(t, w, target, "x\n")
		if err := prepare(filepath.Join(root, "Maildir")); err != nil {
			t.Fatal(err)
		}
		target.Folder, target.MakeFolder = ".f", true
		r := deliver(t, w, target, "x\n")
		if name == "a symbolic link" {
			wantError(t, r, syscall.ELOOP)
			continue
		}
		if r.Err != nil || r.Folder != "" {
			t.Errorf("%s: %+v", name, r)
		}
		if _, err := os.Stat(filepath.Join(root, "Maildir/.f/new")); err == nil {
			t.Errorf("%s: it has become a folder", name)
		}
	}
	// In a home that is the Maildir itself there are other people's directories.
	root := memoryDir(t)
	if r := delivered(t, w, Target{Root: root, Folder: ".config", MakeFolder: true}, "x\n"); r.Folder != "" {
		t.Errorf("%+v", r)
	}
	// Names that are none are INBOX, as ever.
	for _, f := range []string{".", "..", ".a..b", "a", ".a/b", ".a."} {
		if r := delivered(t, w, Target{Root: root, Path: "M", Folder: f, MakeFolder: true}, "x\n"); r.Folder != "" {
			t.Errorf("%q: %+v", f, r)
		}
	}
}

// What an attempt that was cut short has left is finished by the next one.
func TestMakeFolderInterrupted(t *testing.T) {
	for n := 1; ; n++ {
		root := memoryDir(t)
		target := Target{Root: root, Path: "Maildir", Folder: ".f", MakeFolder: true}
		w := &Writer{Hostname: "mx"}
		steps := 0
		w.Before = func(op, path string) error {
			if steps++; steps >= n {
				return syscall.EIO
			}
			return nil
		}
		first := deliver(t, w, target, "x\n")
		second := delivered(t, &Writer{Hostname: "mx"}, target, "x\n")
		if _, err := os.Stat(filepath.Join(root, "Maildir/.f/maildirfolder")); second.Folder != ".f" || err != nil {
			t.Errorf("step %d: %+v, %v", n, second, err)
		}
		if first.Err == nil {
			break
		}
		if n > 200 {
			t.Fatal("no end of steps")
		}
	}
}

// A subscription that cannot be noted is a warning, and the mail is delivered.
func TestSubscribeTrouble(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(box string) error
		cause   error // nil: it succeeds
	}{
		"locked by somebody": {func(box string) error {
			return os.WriteFile(box+"/subscriptions.lock", nil, 0o600)
		}, syscall.EEXIST},
		"a lock that was left": {func(box string) error {
			if err := os.WriteFile(box+"/subscriptions.lock", nil, 0o600); err != nil {
				return err
			}
			old := time.Now().Add(-time.Minute)
			return os.Chtimes(box+"/subscriptions.lock", old, old)
		}, nil},
		"a link": {func(box string) error { return os.Symlink("/etc/passwd", box+"/subscriptions") }, syscall.ELOOP},
		"a directory": {func(box string) error {
			return os.Mkdir(box+"/subscriptions", 0o700)
		}, syscall.EISDIR},
		"too large": {func(box string) error {
			return os.WriteFile(box+"/subscriptions", []byte(strings.Repeat("x\n", maxSubscriptions)), 0o600)
		}, errors.ErrUnsupported},
	} {
		root := memoryDir(t)
		box := filepath.Join(root, "Maildir")
		w := &Writer{Hostname: "mx"}
		delivered(t, w, Target{Root: root, Path: "Maildir"}, "x\n")
		if err := test.prepare(box); err != nil {
			t.Fatal(err)
		}
		r := delivered(t, w, Target{Root: root, Path: "Maildir", Folder: ".f", MakeFolder: true}, "x\n")
		switch {
		case r.Folder != ".f", (r.Warning == nil) != (test.cause == nil),
			test.cause != errors.ErrUnsupported && !errors.Is(r.Warning, test.cause):
			t.Errorf("%s: %+v", name, r)
		case test.cause == nil && readText(t, box+"/subscriptions") != "f\n":
			t.Errorf("%s: %q", name, readText(t, box+"/subscriptions"))
		}
		if _, err := os.Lstat(box + "/subscriptions.lock"); (err == nil) != (name == "locked by somebody") {
			t.Errorf("%s: lock: %v", name, err)
		}
	}
}

// A message that has been seen is one that readers do not show as new.
func TestFlags(t *testing.T) {
	for _, classic := range []bool{false, true} {
		root := memoryDir(t)
		w := &Writer{Hostname: "mx"}
		if classic {
			w.Before = func(op, path string) error {
				if op == OpUnnamed {
					return syscall.EOPNOTSUPP
				}
				return nil
			}
		}
		r := delivered(t, w, Target{Root: root, Path: "Maildir", Folder: ".Junk", MakeFolder: true, Flags: "FS", Token: "ab"}, "x\n")
		folder := filepath.Join(root, "Maildir/.Junk")
		if filepath.Dir(r.File) != filepath.Join(folder, "cur") || !strings.HasSuffix(r.File, ":2,FS") {
			t.Errorf("%+v", r)
		}
		msgs, err := gomaildir.Dir(folder).Messages()
		if err != nil || len(msgs) != 1 || fmt.Sprint(msgs[0].Flags()) != fmt.Sprint([]gomaildir.Flag{gomaildir.FlagFlagged, gomaildir.FlagSeen}) {
			t.Errorf("%v, %v", msgs, err)
		}
		for _, sub := range []string{"new", "tmp"} {
			if left := entries(t, filepath.Join(folder, sub)); len(left) > 0 {
				t.Errorf("%s: %v", sub, left)
			}
		}
		again := delivered(t, &Writer{Hostname: "mx"}, Target{Root: root, Path: "Maildir", Folder: ".Junk", Flags: "S", Token: "ab", Seek: true}, "x\n")
		if !again.Found || again.File != r.File {
			t.Errorf("%+v", again)
		}
		// A failure takes its file back from cur/.
		bad := &Writer{Hostname: "mx", Before: func(op, path string) error {
			if op == OpSyncDir {
				return syscall.EIO
			}
			return nil
		}}
		wantError(t, deliver(t, bad, Target{Root: root, Path: "Maildir", Flags: "S"}, "x\n"), syscall.EIO)
		wantEmpty(t, filepath.Join(root, "Maildir"))
	}
	for _, f := range []string{"SF", "SS", "X", "s", ":", "S/"} {
		if r := deliver(t, &Writer{}, Target{Root: memoryDir(t), Flags: f}, "x\n"); r.Err == nil {
			t.Errorf("flags %q were taken", f)
		}
	}
}

// What a file system can do is asked of the one that the message goes to.
func TestFlagsOnAnotherDisk(t *testing.T) {
	other := mountTmpfs(t, "mode=0700")
	root := memoryDir(t)
	delivered(t, &Writer{}, Target{Root: root}, "x\n")
	cur := filepath.Join(root, "cur")
	if err := syscall.Mount(other, cur, "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(cur, syscall.MNT_DETACH) })
	var steps []string
	w := &Writer{Before: func(op, _ string) error { steps = append(steps, op); return nil }}
	w.disks.put(deviceOf(t, root), disk{})
	w.disks.put(deviceOf(t, cur), disk{ordered: true})
	delivered(t, w, Target{Root: root, Flags: "S"}, "x\n")
	if !slices.Contains(steps, OpWriteBack) {
		t.Errorf("steps %q, want one that is known of the file system of cur/", steps)
	}
}
