package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

const faultBody = "Subject: fault\n\nbody\n"

// faultCases are deliveries that between them take every step there is.
var faultCases = []struct {
	name    string
	classic bool // by tmp/
	linkat  bool // unnamed file that cannot be named
	file    bool // body in a file
	exists  bool // Maildir exists
	once    bool // content and name synced together
}{
	{name: "unnamed, created"},
	{name: "unnamed, exists", exists: true},
	{name: "unnamed, file", file: true},
	{name: "classic, created", classic: true},
	{name: "classic, exists, file", classic: true, exists: true, file: true},
	{name: "unnamed then classic", linkat: true, exists: true},
	{name: "unnamed, once", once: true},
	{name: "classic, once, file", once: true, classic: true, file: true, exists: true},
	{name: "unnamed then classic, once", linkat: true, exists: true, once: true},
}

// forced is the fault that a case begins with.
func forced(classic, linkat bool, op string) error {
	if classic && op == OpUnnamed || linkat && op == OpLink {
		return syscall.EOPNOTSUPP
	}
	return nil
}

// eachStep runs f for each step of each case, with a fresh root that has a
// neighbour's mailbox in it.
func eachStep(t *testing.T, f func(t *testing.T, root string, n int, op string, target Target, b Body, order SyncOrder, force func(op, path string) error)) {
	for _, c := range faultCases {
		t.Run(c.name, func(t *testing.T) {
			force := func(op, _ string) error { return forced(c.classic, c.linkat, op) }
			order := SyncStrict
			if c.once {
				order = syncOnce
			}
			setup := func() (string, Target, Body) {
				root := memoryDir(t)
				if c.exists {
					for _, sub := range []string{"cur", "tmp", "new"} {
						if err := os.MkdirAll(filepath.Join(root, "bob", sub), 0o700); err != nil {
							t.Fatal(err)
						}
					}
				}
				delivered(t, &Writer{}, Target{Root: root, Path: "neighbour"}, "untouched\n")
				b := memory(faultBody)
				if c.file {
					b = spooled(t, root, faultBody)
				}
				return root, Target{Root: root, Path: "bob", Header: []byte("Return-Path: <>\n")}, b
			}
			var ops []string
			_, tg, b := setup()
			if r := deliverBody(t, &Writer{Order: order, Before: func(op, _ string) error {
				if err := force(op, ""); err != nil {
					return err
				}
				ops = append(ops, op)
				return nil
			}}, tg, b); r.Err != nil {
				t.Fatal(r.Err)
			}
			if len(ops) < 6 {
				t.Fatalf("only the steps %v", ops)
			}
			for n, op := range ops {
				root, tg, b := setup()
				f(t, root, n, op, tg, b, order, force)
				if t.Failed() {
					t.Fatalf("at step %d (%s) of %v", n, op, ops)
				}
				for _, got := range messages(t, filepath.Join(root, "neighbour")) {
					if got != "untouched\n" {
						t.Fatalf("step %d (%s): the neighbour's message is %q", n, op, got)
					}
				}
			}
		})
	}
}

// Any step may fail: then the copy has failed, nothing is left, the next one in
// the same call is served, and the redelivery makes exactly one message.
func TestFaultAtEachStep(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE} {
		eachStep(t, func(t *testing.T, root string, n int, op string, tg Target, b Body, order SyncOrder, force func(op, path string) error) {
			other := memoryDir(t)
			var step atomic.Int64
			w := &Writer{Order: order, Before: func(op, path string) error {
				if err := force(op, path); err != nil || strings.HasPrefix(path, other) {
					return err
				}
				if step.Add(1)-1 == int64(n) {
					return errno
				}
				return nil
			}}
			targets := []Target{tg, {Root: other, Path: "near"}}
			if order == syncOnce && op == OpSyncDir {
				delivered(t, &Writer{}, targets[1], faultBody)
				targets = targets[:1] // one of two would take this step for both
			}
			w.Deliver(t.Context(), b, targets, func(i int, r Result) {
				if i != 0 && r.Err != nil {
					t.Errorf("the next copy: %v", r.Err)
				}
				if i == 0 && (!errors.Is(r.Err, errno) || r.File != "") {
					t.Errorf("error is %v, want %v; file is %q", r.Err, errno, r.File)
				}
			})
			wantEmpty(t, filepath.Join(root, tg.Path))
			if got := messages(t, filepath.Join(other, "near")); len(got) != 1 {
				t.Errorf("%d messages beside it, want 1", len(got))
			}
			if r := deliverBody(t, &Writer{}, tg, b); r.Err != nil {
				t.Errorf("redelivery: %v", r.Err)
			}
			if got := messages(t, filepath.Join(root, tg.Path)); len(got) != 1 {
				t.Errorf("%d messages after the redelivery", len(got))
			}
		})
	}
}

// The context may end at any step: before the name the copy has certainly not
// been delivered, and with the name it certainly has.
func TestCancelAtEachStep(t *testing.T) {
	eachStep(t, func(t *testing.T, root string, n int, op string, tg Target, b Body, order SyncOrder, force func(op, path string) error) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		step := 0
		w := &Writer{Order: order, Before: func(op, path string) error {
			if err := force(op, path); err != nil {
				return err
			}
			if step == n {
				cancel()
			}
			step++
			return nil
		}}
		w.Deliver(ctx, b, []Target{tg}, func(_ int, r Result) {
			box := filepath.Join(root, tg.Path)
			if op == OpLink || op == OpRename || op == OpSyncNamed || op == OpSyncDir {
				if r.Err != nil || len(messages(t, box)) != 1 {
					t.Errorf("named, but the outcome is %v and new/ holds %v", r.Err, entries(t, filepath.Join(box, "new")))
				}
				return
			}
			wantError(t, r, context.Canceled)
			wantEmpty(t, box)
		})
	})
}

// crashEnv tells the test binary, run again as a child, where to deliver and at
// which step to die.
const crashEnv = "MAILDIR_TEST_CRASH"

func TestCrashChild(t *testing.T) {
	var root, way string
	var n int
	if _, err := fmt.Sscanf(os.Getenv(crashEnv), "%s %s %d", &root, &way, &n); err != nil {
		t.Skip("runs as the child of TestCrashAtEachStep")
	}
	step := 0
	w := &Writer{Before: func(op, _ string) error {
		if way == "classic" && op == OpUnnamed {
			return syscall.EOPNOTSUPP
		}
		if step == n {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		step++
		return nil
	}}
	if way == "once" {
		w.Order = syncOnce
	}
	deliver(t, w, Target{Root: root, Path: "bob"}, faultBody)
}

// kill -9 before any step: a reader finds the whole message or none, and only
// the way by tmp/ leaves litter, and only there.
func TestCrashAtEachStep(t *testing.T) {
	for _, way := range []string{"unnamed", "classic", "once"} {
		for n, alive := 0, false; !alive; n++ {
			if n > 100 {
				t.Fatal("the child dies for ever")
			}
			root := memoryDir(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", crashEnv, root, way, n))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if alive = err == nil; !alive && !(errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL) {
				t.Fatalf("%v: %s", err, out)
			}
			box := filepath.Join(root, "bob")
			for _, name := range entries(t, filepath.Join(box, "new")) {
				if got, err := os.ReadFile(filepath.Join(box, "new", name)); err != nil || string(got) != faultBody {
					t.Errorf("step %d: a reader finds %q, %v", n, got, err)
				}
			}
			if left := entries(t, filepath.Join(box, "tmp")); len(left) > 0 && way != "classic" || len(left) > 1 {
				t.Errorf("step %d: left in tmp/: %v", n, left)
			}
			if got := entries(t, filepath.Join(box, "new")); alive && len(got) != 1 {
				t.Errorf("delivered, but new/ holds %v", got)
			}
			delivered(t, &Writer{}, Target{Root: root, Path: "bob"}, faultBody)
		}
	}
}

// The directory's sync fails and the name cannot be taken back: the error says
// so, for the redelivery will make a second copy.
func TestNameStays(t *testing.T) {
	root := t.TempDir()
	w := &Writer{Before: func(op, _ string) error {
		if op == OpSyncDir || op == OpRemove {
			return syscall.EIO
		}
		return nil
	}}
	e := wantError(t, deliver(t, w, Target{Root: root}, "x\n"), syscall.EIO, "a redelivery makes a second copy")
	if e.Op != OpSyncDir {
		t.Errorf("op is %q", e.Op)
	}
	// A reader was faster than the removal.
	w = &Writer{Before: func(op, path string) error {
		if op == OpRemove {
			return os.Rename(path, filepath.Join(root, "cur", filepath.Base(path)+":2,S"))
		}
		if op == OpSyncDir {
			return syscall.EIO
		}
		return nil
	}}
	wantError(t, deliver(t, w, Target{Root: root}, "x\n"), syscall.EIO, "no such file")
}

// A name that exists is tried again with another, but not for ever, and the
// file that has it is never replaced.
func TestCollision(t *testing.T) {
	for _, classic := range []bool{false, true} {
		for _, collisions := range []int{1, nameTries - 1, nameTries} {
			root := t.TempDir()
			delivered(t, &Writer{}, Target{Root: root}, "first\n")
			taken := 0
			w := &Writer{Before: func(op, path string) error {
				if classic && op == OpUnnamed {
					return syscall.EOPNOTSUPP
				}
				if (op == OpLink || op == OpRename) && taken < collisions {
					taken++ // the step itself finds the name taken
					return os.WriteFile(path, []byte("other\n"), 0o600)
				}
				return nil
			}}
			r := deliver(t, w, Target{Root: root}, "x\n")
			want := collisions + 2
			if collisions < nameTries && r.Err != nil || collisions == nameTries && !errors.Is(r.Err, syscall.EEXIST) {
				t.Errorf("%d collisions: %v", collisions, r.Err)
			}
			if r.Err != nil {
				want--
			}
			got := map[string]int{}
			for _, c := range messages(t, root) {
				got[c]++
			}
			if got["first\n"] != 1 || got["other\n"] != collisions || got["first\n"]+got["other\n"]+got["x\n"] != want {
				t.Errorf("%d collisions: messages are %v", collisions, got)
			}
			if left := entries(t, filepath.Join(root, "tmp")); len(left) > 0 {
				t.Errorf("left in tmp/: %v", left)
			}
		}
	}
}

// The way by tmp/ is found out once for each file system and then taken at once.
func TestRememberDevice(t *testing.T) {
	for _, op := range []string{OpUnnamed, OpLink} {
		root := memoryDir(t)
		count := map[string]int{}
		w := &Writer{Before: func(o, _ string) error {
			count[o]++
			if o == op {
				return syscall.EOPNOTSUPP
			}
			return nil
		}}
		for range 3 {
			delivered(t, w, Target{Root: root}, "x\n")
		}
		if count[op] != 1 || count[OpRename] != 3 {
			t.Errorf("%s fails: steps are %v", op, count)
		}
		if got := messages(t, root); len(got) != 3 {
			t.Errorf("%d messages", len(got))
		}
	}
	var s disks
	for i := range uint32(10 * maxDevices) {
		s.put(device{i, 0}, disk{classic: true})
		if k, _ := s.get(device{i, 0}); !k.classic || len(s.m) > maxDevices {
			t.Fatalf("device %d of %d", i, len(s.m))
		}
	}
	var d dirSet
	for i := range uint64(3 * maxSettled) {
		d.add(dirID{ino: i})
		if !d.has(dirID{ino: i}) || len(d.m) > maxSettled {
			t.Fatalf("directory %d of %d", i, len(d.m))
		}
	}
}
