package maildir

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mountTmpfs returns a small file system of the test's own.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	needRoot(t, "mounting a tmpfs")
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A full disk: the error is ENOSPC, nothing stays, those that fit are delivered,
// and with room the redelivery arrives.
func TestDiskFull(t *testing.T) {
	needRoot(t, "mounting a tmpfs")
	for _, file := range []bool{false, true} {
		ways(t, func(t *testing.T, w *Writer) {
			root := mountTmpfs(t, "size=64k")
			body := strings.Repeat("twenty-one characters\n", 5000)
			b := memory(body)
			if file {
				b = spooled(t, t.TempDir(), body)
			}
			delivered(t, w, Target{Root: root, Path: "small"}, "before\n")
			r := deliverBody(t, w, Target{Root: root, Path: "bob"}, b)
			if e := wantError(t, r, syscall.ENOSPC); e.Op != OpWrite || e.Missing != "" {
				t.Errorf("error is %+v", e)
			}
			wantEmpty(t, filepath.Join(root, "bob"))
			delivered(t, w, Target{Root: root, Path: "small"}, "after\n")
			if got := messages(t, filepath.Join(root, "small")); len(got) != 2 {
				t.Errorf("messages beside it: %v", got)
			}
			if err := syscall.Mount("tmpfs", root, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
				t.Fatal(err)
			}
			if r := deliverBody(t, w, Target{Root: root, Path: "bob"}, b); r.Err != nil {
				t.Error(r.Err)
			}
			for _, got := range messages(t, filepath.Join(root, "bob")) {
				if got != body {
					t.Errorf("%d octets, want %d", len(got), len(body))
				}
			}
		})
	}
}

func TestInodesFull(t *testing.T) {
	needRoot(t, "mounting a tmpfs")
	ways(t, func(t *testing.T, w *Writer) {
		root := mountTmpfs(t, "nr_inodes=20")
		n, err := 0, error(nil)
		for range 30 {
			if r := deliver(t, w, Target{Root: root, Path: "bob"}, "x\n"); r.Err != nil {
				wantError(t, r, syscall.ENOSPC)
				err = r.Err
				continue
			}
			n++
		}
		if err == nil {
			t.Fatal("30 messages with 20 inodes")
		}
		got := entries(t, filepath.Join(root, "bob/new"))
		if len(got) != n || len(entries(t, filepath.Join(root, "bob/tmp"))) > 0 {
			t.Errorf("%d delivered, but new/ holds %d", n, len(got))
		}
		// And none left for the directories of a new mailbox.
		r := deliver(t, w, Target{Root: root, Path: "amy"}, "x\n")
		if e := wantError(t, r, syscall.ENOSPC); e.Op != OpMkdir {
			t.Errorf("op is %q", e.Op)
		}
	})
}

func TestReadOnlyFileSystem(t *testing.T) {
	root := mountTmpfs(t, "size=1m")
	delivered(t, &Writer{}, Target{Root: root, Path: "bob"}, "x\n")
	if err := syscall.Mount("tmpfs", root, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	ways(t, func(t *testing.T, w *Writer) {
		wantError(t, deliver(t, w, Target{Root: root, Path: "bob"}, "x\n"), syscall.EROFS)
		wantError(t, deliver(t, w, Target{Root: root, Path: "amy"}, "x\n"), syscall.EROFS)
	})
	if got := messages(t, filepath.Join(root, "bob")); len(got) != 1 {
		t.Errorf("messages are %v", got)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write anywhere; TestUnprivileged runs this as another account")
	}
	root := t.TempDir()
	delivered(t, &Writer{}, Target{Root: root, Path: "bob"}, "x\n")
	dir := filepath.Join(root, "bob/new")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o700) }) // or it could not be removed
	ways(t, func(t *testing.T, w *Writer) {
		r := deliver(t, w, Target{Root: root, Path: "bob"}, "x\n")
		wantError(t, r, syscall.EACCES, fmt.Sprintf("missing +w on %s, which has mode 0500 and belongs to %d:%d", dir, os.Geteuid(), os.Getegid()))
		if left := entries(t, filepath.Join(root, "bob/tmp")); len(left) > 0 {
			t.Errorf("left in tmp/: %v", left)
		}
	})
}

// A file size limit (ulimit -f) stops a write half way.
func TestFileSizeLimit(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 8 << 20 // far more than what the test binary writes for itself meanwhile
	body := strings.Repeat("0123456789abcde\n", 576<<10)
	ways(t, func(t *testing.T, w *Writer) {
		root := t.TempDir()
		bodies := []Body{memory(body), spooled(t, t.TempDir(), body)}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Skip(err)
		}
		defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)
		for _, b := range bodies {
			wantError(t, deliverBody(t, w, Target{Root: root, Path: "bob"}, b), syscall.EFBIG)
			wantEmpty(t, filepath.Join(root, "bob"))
		}
	})
}

// The mailbox is on another file system than its root and the spool.
func TestMountBelowRoot(t *testing.T) {
	small := mountTmpfs(t, "size=1m")
	root := filepath.Dir(small)
	ways(t, func(t *testing.T, w *Writer) {
		b := spooled(t, t.TempDir(), "x\n")
		r := deliverBody(t, w, Target{Root: root, Path: "small/bob"}, b)
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		f, err := os.Open(r.File)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := io.ReadAll(f); err != nil || string(got) != "x\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

const noProcEnv = "MAILDIR_TEST_NOPROC"

// Without /proc an unnamed file is named by its descriptor where the kernel
// allows that, and else the message goes by way of tmp/.
func TestNoProc(t *testing.T) {
	needRoot(t, "hiding /proc")
	if os.Getenv(noProcEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestNoProc$", "-test.v")
		cmd.Env = append(os.Environ(), noProcEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := openDir(t)
	bob := home(t, dir, "bob", bobUID, bobGID, 0o700)
	if err := syscall.Mount("tmpfs", "/proc", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	w := &Writer{Before: func(op, _ string) error {
		count[op]++
		return nil
	}}
	for range 3 {
		delivered(t, w, Target{Root: dir, Path: "amy"}, "x\n")
		delivered(t, w, Target{Root: bob, Owner: &Owner{UID: bobUID, GID: bobGID}}, "x\n")
	}
	for _, box := range []string{"bob", "amy"} {
		if got := messages(t, filepath.Join(dir, box)); len(got) != 3 {
			t.Errorf("%s: messages are %v", box, got)
		}
	}
	t.Logf("%d times by descriptor, %d times by way of tmp/", count[OpLink], count[OpRename])
}
