package maildir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// sharedTargets are n mailboxes below root that may share a file.
func sharedTargets(root string, n int) []Target {
	all := make([]Target, n)
	for i := range all {
		all[i] = Target{Root: root, Path: fmt.Sprint("box", i), Header: []byte("A: b\n"), Share: true}
	}
	return all
}

// deliverAll delivers to all targets at once.
func deliverAll(t testing.TB, w *Writer, b Body, targets []Target) []Result {
	t.Helper()
	var mu sync.Mutex
	results := make([]Result, len(targets))
	told := make([]int, len(targets))
	w.Deliver(t.Context(), b, targets, func(i int, r Result) {
		mu.Lock()
		defer mu.Unlock()
		results[i] = r
		told[i]++
	})
	for i, n := range told {
		if n != 1 {
			t.Errorf("target %d: done %d times", i, n)
		}
	}
	return results
}

// files counts inodes among the messages that were delivered, after checking each.
func files(t testing.TB, results []Result, content string) int {
	t.Helper()
	inodes := map[uint64]int{}
	for i, r := range results {
		if r.Err != nil {
			continue
		}
		text, err := os.ReadFile(r.File)
		if err != nil || string(text) != content {
			t.Errorf("target %d: %.100q, %v", i, text, err)
		}
		if !strings.Contains(r.File, fmt.Sprintf(",S=%d,W=%d", len(content), len(content)+strings.Count(content, "\n"))) {
			t.Errorf("target %d: sizes in %s", i, r.File)
		}
		var st unix.Stat_t
		if err := unix.Stat(r.File, &st); err != nil {
			t.Error(err)
		}
		inodes[st.Ino]++
	}
	return len(inodes)
}

// One file for as many mailboxes as take part, synced once in each way, also past a
// batch; each with a name of its own, in the place of its own.
func TestShare(t *testing.T) {
	for _, order := range []SyncOrder{SyncStrict, syncOnce} {
		ways(t, func(t *testing.T, w *Writer) {
			w.Order = order
			var mu sync.Mutex
			steps := map[string]int{}
			before := w.Before
			w.Before = func(op, path string) error {
				mu.Lock()
				steps[op]++
				mu.Unlock()
				if before != nil {
					return before(op, path)
				}
				return nil
			}
			root := memoryDir(t)
			targets := sharedTargets(root, batchSize+20)
			targets[3].Token = "abc"
			targets[4].Flags = "S"
			targets[5].Folder, targets[5].MakeFolder = ".f", true
			targets[6].Header = []byte("C: d\n") // not the same octets
			targets[7].Share = false
			targets[8].Quota = &Quota{Octets: 1000}
			targets[9].Quota = &Quota{Octets: 3} // full
			results := deliverAll(t, w, memory("x\n"), targets)
			for i, r := range results {
				if (r.Err == nil) != (i != 9) {
					t.Errorf("target %d: %v", i, r.Err)
				}
			}
			wantError(t, results[9], ErrQuotaSize)
			if r := results[3]; !strings.Contains(r.File, "Rabc.") {
				t.Error(r.File)
			}
			if r := results[4]; !strings.HasSuffix(r.File, ":2,S") || filepath.Base(filepath.Dir(r.File)) != "cur" {
				t.Error(r.File)
			}
			if r := results[5]; r.Folder != ".f" {
				t.Errorf("%+v", r)
			}
			if r := results[8]; r.Usage != (Usage{Octets: int64(len("A: b\nx\n")), Messages: 1}) {
				t.Errorf("%+v", r)
			}
			alone := []Result{results[6], results[7]}
			if n := files(t, alone[1:], "A: b\nx\n"); n != 1 {
				t.Error(n)
			}
			if n := files(t, alone[:1], "C: d\nx\n"); n != 1 {
				t.Error(n)
			}
			results[6].Err, results[7].Err = errFound, errFound // looked at
			if n := files(t, results, "A: b\nx\n"); n != 1 {
				t.Errorf("%d files", n)
			}
			var st unix.Stat_t
			if err := unix.Stat(results[0].File, &st); err != nil || int(st.Nlink) != len(targets)-3 {
				t.Errorf("%d links, %v", st.Nlink, err)
			}
			if n := steps[OpWrite]; n != 3+1 { // and a maildirfolder is empty, subscriptions is not
				t.Errorf("%d writes", n)
			}
			for i := range targets {
				if i != 5 {
					wantEmptyTmp(t, filepath.Join(root, targets[i].Path))
				}
			}
		})
	}
}

func wantEmptyTmp(t testing.TB, mailbox string) {
	t.Helper()
	if names, err := os.ReadDir(filepath.Join(mailbox, "tmp")); err == nil && len(names) > 0 {
		t.Errorf("%s: %v", mailbox, names)
	}
}

// Whatever fails for one copy, also for the one that writes the file, the others are
// delivered; and a failure that is nobody's own touches nobody's neighbours but those
// that cannot do without.
func TestShareFaults(t *testing.T) {
	for _, order := range []SyncOrder{SyncStrict, syncOnce} {
		for _, op := range []string{
			OpRoot, OpOpen, OpMkdir, OpUnnamed, OpCreate, OpWrite, OpWriteBack, OpSync, OpLink, OpRename, OpSyncNamed, OpSyncDir,
		} {
			for nth := range 3 {
				ways(t, func(t *testing.T, w *Writer) {
					w.Order = order
					root := memoryDir(t)
					targets := sharedTargets(root, 12)
					var mu sync.Mutex
					victim, seen := "", 0
					before := w.Before
					w.Before = func(at, path string) error {
						if before != nil {
							if err := before(at, path); err != nil {
								return err
							}
						}
						if at != op {
							return nil
						}
						// The nth copy that takes this step fails in it for good.
						rel, err := filepath.Rel(root, path)
						box, _, _ := strings.Cut(rel, "/")
						if err != nil || box == "." {
							return nil
						}
						mu.Lock()
						defer mu.Unlock()
						if victim == "" {
							if seen == nth {
								victim = box
							}
							seen++
						}
						if box == victim {
							return unix.EIO
						}
						return nil
					}
					results := deliverAll(t, w, memory("x\n"), targets)
					failed := 0
					for i, r := range results {
						if r.Err == nil {
							continue
						}
						failed++
						if targets[i].Path != victim {
							t.Errorf("%s, %s of %s fails: %s fails too: %v", order, op, victim, targets[i].Path, r.Err)
						}
						if names, err := os.ReadDir(filepath.Join(root, targets[i].Path, "new")); err == nil && len(names) > 0 {
							t.Errorf("%s: refused, and %v is there", op, names)
						}
					}
					if failed > 1 || failed == 0 && victim != "" {
						t.Errorf("%s: %d failures, victim %q", op, failed, victim)
					}
					// A file that nobody could have linked in time is written by each.
					most := 2
					if op == OpWriteBack || op == OpSync || op == OpRename {
						most = len(targets)
					}
					if n := files(t, results, "A: b\nx\n"); n < 1 || n > most {
						t.Errorf("%s fails for %s: %d files", op, victim, n)
					}
				})
			}
		}
	}
}

// What cannot be linked becomes a file of its own.
func TestShareUnlinkable(t *testing.T) {
	for _, errno := range []error{unix.EMLINK, unix.EXDEV, unix.EPERM, unix.ENOENT, unix.EOPNOTSUPP} {
		root := memoryDir(t)
		targets := sharedTargets(root, 10)
		var mu sync.Mutex
		linked := map[string]bool{}
		w := &Writer{Before: func(op, path string) error {
			if op != OpLink {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			box := filepath.Dir(path)
			if !linked[box] && len(linked) > 0 {
				linked[box] = true
				return errno
			}
			linked[box] = true
			return nil
		}}
		results := deliverAll(t, w, memory("x\n"), targets)
		for i, r := range results {
			if r.Err != nil {
				t.Errorf("%v: target %d: %v", errno, i, r.Err)
			}
		}
		if n := files(t, results, "A: b\nx\n"); n != len(targets) {
			t.Errorf("%v: %d files", errno, n)
		}
	}
}

// Between file systems, mounts and owners nothing is shared.
func TestShareApart(t *testing.T) {
	needRoot(t, "mount and make owners")
	one, two := openDir(t), mountTmpfs(t, "size=4m,mode=755")
	bound := filepath.Join(one, "bound")
	if err := os.MkdirAll(filepath.Join(one, "inside"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bound, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(one, "inside"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(bound, unix.MNT_DETACH) })
	var targets []Target
	for _, root := range []string{one, two, bound} {
		for i, owner := range []*Owner{nil, nil, {UID: 64001, GID: 64001}, {UID: 64001, GID: 64001}, {UID: 64002, GID: 64001}, {UID: 64001, GID: 64002}} {
			home := filepath.Join(root, fmt.Sprint("home", i))
			if err := os.Mkdir(home, 0o700); err != nil {
				t.Fatal(err)
			}
			if owner != nil {
				if err := os.Chown(home, int(owner.UID), int(owner.GID)); err != nil {
					t.Fatal(err)
				}
			}
			targets = append(targets, Target{Root: home, Path: "Maildir", Owner: owner, Header: []byte("A: b\n"), Share: true})
		}
	}
	results := deliverAll(t, &Writer{}, memory("x\n"), targets)
	inodes := map[string][]int{}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("%s: %v", targets[i].Root, r.Err)
		}
		var st unix.Stat_t
		if err := unix.Stat(r.File, &st); err != nil {
			t.Fatal(err)
		}
		if o := targets[i].Owner; o != nil && (st.Uid != o.UID || st.Gid != o.GID) {
			t.Errorf("%s belongs to %d:%d", r.File, st.Uid, st.Gid)
		}
		key := fmt.Sprint(st.Dev, st.Ino)
		inodes[key] = append(inodes[key], i)
	}
	for i := range targets {
		pair := i%6 == 0 || i%6 == 2 // with the one after it
		for _, group := range inodes {
			if pair && group[0] == i && (len(group) != 2 || group[1] != i+1) {
				t.Errorf("target %d shares with %v", i, group)
			}
		}
	}
	if len(inodes) != 12 {
		t.Errorf("%d files: %v", len(inodes), inodes)
	}
}

// A copy that hangs while it writes the shared file holds no other up.
func TestShareHang(t *testing.T) {
	for _, op := range []string{OpRoot, OpWrite, OpSync, OpLink, OpSyncDir} {
		root := memoryDir(t)
		var mu sync.Mutex
		victim, release := "", make(chan struct{})
		w := &Writer{Order: SyncStrict, Before: func(at, path string) error {
			rel, err := filepath.Rel(root, path)
			box, _, _ := strings.Cut(rel, "/")
			if at != op || err != nil || box == "." && op != OpRoot {
				return nil
			}
			mu.Lock()
			first := victim == ""
			if first {
				victim = box
			}
			mu.Unlock()
			if first {
				<-release
			}
			return nil
		}}
		targets := sharedTargets(root, 12)
		results := make([]Result, len(targets))
		left := len(targets)
		var all sync.WaitGroup
		all.Go(func() {
			w.Deliver(t.Context(), memory("x\n"), targets, func(i int, r Result) {
				mu.Lock()
				defer mu.Unlock()
				results[i] = r
				if left--; left == 1 {
					close(release) // all others are delivered
				}
			})
		})
		all.Wait()
		for i, r := range results {
			if r.Err != nil {
				t.Errorf("%s hangs: target %d: %v", op, i, r.Err)
			}
		}
		if files(t, results, "A: b\nx\n") == 0 {
			t.Error("nothing delivered")
		}
	}
}

// No descriptor stays open, whatever happened.
func TestShareDescriptors(t *testing.T) {
	root := memoryDir(t)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(names)
	}
	w := &Writer{}
	deliverAll(t, w, memory("x\n"), sharedTargets(root, 4))
	before := count()
	for _, op := range []string{"", OpWrite, OpSync, OpLink, OpSyncDir} {
		failures := 2
		var mu sync.Mutex
		w := &Writer{Order: SyncStrict, Before: func(at, _ string) error {
			mu.Lock()
			defer mu.Unlock()
			if at == op && failures > 0 {
				failures--
				return unix.EIO
			}
			return nil
		}}
		deliverAll(t, w, Body{Data: bytes.Repeat([]byte("x\n"), 50), Size: 100, Lines: 50}, sharedTargets(root, 8))
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
