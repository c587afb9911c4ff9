package maildir

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// mountImage makes a file system in a file and mounts it; it goes with the test.
func mountImage(t *testing.T, mkfs ...string) string {
	t.Helper()
	needRoot(t, "mount")
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skip("needs ", mkfs[0])
	}
	image, dir := filepath.Join(t.TempDir(), "image"), openDir(t)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 1<<30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Skipf("%v: %v: %s", mkfs, err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// used is how much of a file system is taken, once everything is on it.
func used(t testing.TB, dir string) int64 {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// cloneTargets have headers of their own, as long as each other's, and two longer ones.
func cloneTargets(t testing.TB, root string, n int) []Target {
	t.Helper()
	var all []Target
	for i := range n {
		tg := Target{Root: filepath.Join(root, fmt.Sprint("home", i)), Path: "Maildir", Header: []byte(fmt.Sprintf("Number: %03d\n", i))}
		if i >= n-2 {
			tg.Header = append(tg.Header, "More: x\n"...)
		}
		tg.Owner = &Owner{UID: uint32(64001 + i), GID: 64001}
		if err := os.MkdirAll(tg.Root, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(tg.Root, int(tg.Owner.UID), int(tg.Owner.GID)); err != nil {
			t.Fatal(err)
		}
		all = append(all, tg)
	}
	return all
}

func wantWhole(t testing.TB, targets []Target, results []Result, body string) {
	t.Helper()
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("target %d: %v", i, r.Err)
			continue
		}
		text, err := os.ReadFile(r.File)
		if err != nil || string(text) != string(targets[i].Header)+body {
			t.Errorf("target %d: %d octets, %.60q, %v", i, len(text), text, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(r.File, &st); err != nil || st.Nlink != 1 || st.Uid != targets[i].Owner.UID || st.Mode&0o777 != 0o600 {
			t.Errorf("target %d: %d links, uid %d, mode %o", i, st.Nlink, st.Uid, st.Mode)
		}
	}
}

// Large copies share their blocks on file systems that can do so, whoever owns them,
// and are copies on others.
func TestClone(t *testing.T) {
	const copies, size = 12, 4 << 20
	body := strings.Repeat("0123456789abcde\n", size/16)
	for _, c := range []struct {
		mkfs   []string
		shared bool
	}{
		{[]string{"mkfs.xfs", "-q", "-m", "reflink=1"}, true},
		{[]string{"mkfs.xfs", "-q", "-m", "reflink=0"}, false},
		{[]string{"mkfs.btrfs", "-q"}, true},
		{[]string{"mkfs.ext4", "-q"}, false},
	} {
		t.Run(strings.Join(c.mkfs, " "), func(t *testing.T) {
			root := mountImage(t, c.mkfs...)
			if err := os.Chmod(root, 0o755); err != nil {
				t.Fatal(err)
			}
			targets := cloneTargets(t, root, copies)
			before := used(t, root)
			w := &Writer{}
			wantWhole(t, targets, deliverAll(t, w, spooled(t, memoryDir(t), body), targets), body)
			took := used(t, root) - before
			t.Logf("%d copies of %d MiB take %.1f MiB", copies, size>>20, float64(took)/(1<<20))
			// Two files, since there are two lengths of headers, and a part of each copy.
			if most := int64(5 * size); c.shared && took > most {
				t.Errorf("%d octets, with blocks shared %d would do", took, most)
			}
			if least := int64(copies * size * 9 / 10); !c.shared && took < least {
				t.Errorf("%d octets: somebody shares blocks here", took)
			}
			// What one owner does to his copy is nobody else's matter.
			results := deliverAll(t, w, spooled(t, memoryDir(t), body), targets)
			if err := os.WriteFile(results[0].File, bytes.Repeat([]byte("y"), size), 0o600); err != nil {
				t.Fatal(err)
			}
			wantWhole(t, targets[1:], results[1:], body)
		})
	}
}

// Each copy has its own failures, and none has half of a message, whichever step fails
// for the first that takes it; and nothing is cloned that has a name.
func TestCloneFaults(t *testing.T) {
	body := strings.Repeat("0123456789abcde\n", 20_000)
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1"}, {"mkfs.btrfs", "-q"}} {
		t.Run(mkfs[0], func(t *testing.T) {
			root := mountImage(t, mkfs...)
			if err := os.Chmod(root, 0o755); err != nil {
				t.Fatal(err)
			}
			descriptors := func() int {
				names, err := os.ReadDir("/proc/self/fd")
				if err != nil {
					t.Fatal(err)
				}
				return len(names)
			}
			before, bodies := descriptors(), 0
			defer func() {
				if n := descriptors() - bodies; n != before {
					t.Errorf("%d descriptors before, %d after", before, n)
				}
			}()
			for _, op := range []string{OpUnnamed, OpWrite, OpClone, OpWriteBack, OpSync, OpLink, OpSyncNamed, OpSyncDir} {
				for _, errno := range []error{unix.EIO, unix.EOPNOTSUPP, unix.ENOSPC} {
					if op == OpUnnamed && errno == unix.EOPNOTSUPP {
						continue // means another way, not a failure
					}
					var mu sync.Mutex
					failed := false
					clonesLeft, named := 0, false
					w := &Writer{Before: func(at, path string) error {
						mu.Lock()
						defer mu.Unlock()
						switch at {
						case OpClone:
							if clonesLeft++; named {
								t.Errorf("%s after a copy has got its name", at)
							}
						case OpLink:
							named = true
						}
						if at == op && !failed {
							failed = true
							return errno
						}
						return nil
					}}
					targets := cloneTargets(t, root, 8)
					bodies++ // open until the test ends
					results := deliverAll(t, w, spooled(t, memoryDir(t), body), targets)
					var good []Target
					var whole []Result
					for i, r := range results {
						if r.Err == nil {
							good, whole = append(good, targets[i]), append(whole, r)
						}
					}
					wantWhole(t, good, whole, body)
					if least := len(targets) - 1; len(good) < least || op == OpClone && len(good) != len(targets) {
						t.Errorf("%s: %v: %d of %d copies delivered", op, errno, len(good), len(targets))
					}
					if clonesLeft == 0 && failed && op != OpWrite {
						t.Errorf("%s: %v: nothing was cloned", op, errno)
					}
				}
			}
		})
	}
}

// A copy that hangs, also the one that others are to be clones of, holds no other up.
func TestCloneHang(t *testing.T) {
	body := strings.Repeat("0123456789abcde\n", 20_000)
	root := mountImage(t, "mkfs.xfs", "-q", "-m", "reflink=1")
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, op := range []string{OpUnnamed, OpWrite, OpClone, OpLink} {
		var mu sync.Mutex
		hung, release := false, make(chan struct{})
		w := &Writer{Before: func(at, _ string) error {
			mu.Lock()
			first := at == op && !hung
			hung = hung || first
			mu.Unlock()
			if first {
				<-release
			}
			return nil
		}}
		targets := cloneTargets(t, root, 8)
		results := make([]Result, len(targets))
		left := len(targets)
		w.Deliver(t.Context(), spooled(t, memoryDir(t), body), targets, func(i int, r Result) {
			mu.Lock()
			defer mu.Unlock()
			results[i] = r
			if left--; left == 1 {
				close(release) // all others are delivered
			}
		})
		wantWhole(t, targets, results, body)
	}
}
