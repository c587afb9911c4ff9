package maildir

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Accounts that exist nowhere: the kernel knows numbers only.
const (
	bobUID, bobGID = 64101, 64201
	amyUID, amyGID = 64102, 64202
	staffGID       = 64301
)

// openDir returns a directory of the test that other accounts can reach.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// home makes a home that belongs to an account.
func home(t *testing.T, parent, name string, uid, gid int, mode uint32) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(dir, mode); err != nil { // os.Chmod has no octal setgid
		t.Fatal(err)
	}
	return dir
}

// identity returns the credentials of a thread.
func identity(task string) string {
	b, err := os.ReadFile(task + "/status")
	if err != nil {
		return "" // the thread has ended
	}
	var ids []string
	for line := range strings.SplitSeq(string(b), "\n") {
		switch key, _, _ := strings.Cut(line, ":"); key {
		case "Uid", "Gid", "Groups", "CapEff", "CapPrm":
			ids = append(ids, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(ids, "; ")
}

// wantThreads checks that each thread has the credentials the process began with.
func wantThreads(t *testing.T, want string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads", err)
	}
	for _, task := range tasks {
		if got := identity(task); got != "" && got != want {
			t.Fatalf("thread %s is %s\nwant %s", task, got, want)
		}
	}
}

// owners of many mailboxes at once: every file and directory belongs to its
// owner, the kernel saw the owner at each step, and no thread stays one.
func TestOwners(t *testing.T) {
	needRoot(t, "switching to other accounts")
	before := identity("/proc/self")
	ways(t, func(t *testing.T, w *Writer) {
		dir := openDir(t)
		umask(t, 0)
		owners := map[string]*Owner{
			home(t, dir, "bob", bobUID, bobGID, 0o700):       {bobUID, bobGID, nil},
			home(t, dir, "amy", amyUID, amyGID, 0o700):       {amyUID, amyGID, []uint32{amyGID, staffGID}},
			home(t, dir, "staff", 0, staffGID, 0o770):        {amyUID, amyGID, []uint32{staffGID}}, // by a supplementary group
			home(t, dir, "root", 0, 0, 0o700):                nil,
			home(t, dir, "setgid", bobUID, staffGID, 0o2700): {bobUID, bobGID, nil}, // group from the directory
			home(t, dir, "many", amyUID, amyGID, 0o700):      {amyUID, amyGID, manyGroups()},
		}
		var targets []Target
		for root, o := range owners {
			for range 10 {
				targets = append(targets, Target{Owner: o, Root: root, Path: "mail/Maildir"})
			}
		}
		force := w.Before
		seen := &Writer{Before: func(op, path string) error {
			// A descriptor is synced with nobody's credentials in particular.
			if op != OpBecome && op != OpRestore && op != OpSync && op != OpSyncNamed && op != OpWriteBack && op != OpSyncDir && !strings.Contains(path, "/root") {
				if id := identity("/proc/thread-self"); !strings.Contains(id, fmt.Sprintf("Uid: 0 0 0 %d; Gid: 0 0 0 %d",
					ownerOf(owners, path).UID, ownerOf(owners, path).GID)) {
					t.Errorf("%s %s as %s", op, path, id)
				}
			}
			if force != nil {
				return force(op, path)
			}
			return nil
		}}
		seen.Deliver(t.Context(), memory("x\n"), targets, func(i int, r Result) {
			if r.Err != nil {
				t.Error(r.Err)
				return
			}
			var uid, gid uint32
			if o := targets[i].Owner; o != nil {
				uid, gid = o.UID, o.GID
			}
			if filepath.Base(targets[i].Root) == "setgid" {
				gid = staffGID
			}
			for p := r.File; p != targets[i].Root; p = filepath.Dir(p) {
				var st syscall.Stat_t
				if err := syscall.Stat(p, &st); err != nil || st.Uid != uid || st.Gid != gid {
					t.Errorf("%s belongs to %d:%d, want %d:%d (%v)", p, st.Uid, st.Gid, uid, gid, err)
				}
				if st.Mode&0o077 != 0 {
					t.Errorf("%s has mode %#o", p, st.Mode)
				}
			}
		})
		wantThreads(t, before)
	})
}

func manyGroups() (groups []uint32) {
	for i := range uint32(200) {
		groups = append(groups, 65000+i)
	}
	return groups
}

func ownerOf(owners map[string]*Owner, path string) *Owner {
	for root, o := range owners {
		if path == root || strings.HasPrefix(path, root+"/") {
			return o
		}
	}
	return nil
}

// The kernel checks every access as the owner, and the error says what he lacks.
func TestOwnerDenied(t *testing.T) {
	needRoot(t, "switching to other accounts")
	before := identity("/proc/self")
	dir := openDir(t)
	bob := &Owner{UID: bobUID, GID: bobGID}
	mk := func(p string, uid, gid int, mode os.FileMode) {
		if err := os.MkdirAll(p, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(p, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	mk(dir+"/closed", 0, 0, 0o700)
	mk(dir+"/closed/bob", bobUID, bobGID, 0o700)
	mk(dir+"/amy", amyUID, amyGID, 0o750)
	mk(dir+"/rootowned", 0, 0, 0o755)
	mk(dir+"/noread", bobUID, bobGID, 0o700)
	mk(dir+"/noread/Maildir", bobUID, bobGID, 0o700)
	mk(dir+"/noread/Maildir/new", bobUID, bobGID, 0o300)
	mk(dir+"/nowrite", bobUID, bobGID, 0o700)
	mk(dir+"/nowrite/Maildir", bobUID, bobGID, 0o700)
	mk(dir+"/nowrite/Maildir/tmp", bobUID, bobGID, 0o700)
	mk(dir+"/nowrite/Maildir/new", 0, 0, 0o755)
	for root, missing := range map[string]string{
		"/closed/bob": "missing +x on " + dir + "/closed, which has mode 0700 and belongs to 0:0",
		"/amy":        "missing +x on " + dir + "/amy, which has mode 0750 and belongs to 64102:64202",
		"/rootowned":  "missing +w on " + dir + "/rootowned, which has mode 0755 and belongs to 0:0",
		"/noread":     "missing +r on " + dir + "/noread/Maildir/new, which has mode 0300 and belongs to 64101:64201",
		"/nowrite":    "missing +w on " + dir + "/nowrite/Maildir/new, which has mode 0755 and belongs to 0:0",
	} {
		ways(t, func(t *testing.T, w *Writer) {
			e := wantError(t, deliver(t, w, Target{Owner: bob, Root: dir + root, Path: "Maildir"}, "x\n"), syscall.EACCES, missing)
			if e.UID != bobUID || e.GID != bobGID || e.Missing != missing {
				t.Errorf("%s: %+v", root, e)
			}
		})
	}
	wantThreads(t, before)
}

// A user's own link to another user's mailbox, or to root's files, is not followed.
func TestOwnerSymlink(t *testing.T) {
	needRoot(t, "switching to other accounts")
	dir := openDir(t)
	bob, amy := home(t, dir, "bob", bobUID, bobGID, 0o755), home(t, dir, "amy", amyUID, amyGID, 0o777)
	if err := os.Symlink(amy, filepath.Join(bob, "Maildir")); err != nil {
		t.Fatal(err)
	}
	r := deliver(t, &Writer{}, Target{Owner: &Owner{UID: bobUID, GID: bobGID}, Root: bob, Path: "Maildir"}, "x\n")
	wantError(t, r, syscall.ELOOP)
	if got := entries(t, amy); len(got) > 0 {
		t.Errorf("made at another user's: %v", got)
	}
}

// A directory that somebody else has put into the mailbox is not written to, even
// if the owner could; one of root's is.
func TestOwnerForeignDirectory(t *testing.T) {
	needRoot(t, "switching to other accounts")
	bob := &Owner{UID: bobUID, GID: bobGID}
	ways(t, func(t *testing.T, w *Writer) {
		for _, c := range []struct {
			sub     string
			uid     int
			refused bool
		}{{"new", amyUID, true}, {"tmp", amyUID, true}, {"new", 0, false}, {"tmp", 0, false}} {
			root := home(t, openDir(t), "bob", bobUID, bobGID, 0o700)
			delivered(t, w, Target{Owner: bob, Root: root, Path: "Maildir"}, "x\n")
			if c.sub == "tmp" && w.Before == nil && !anyClassic(w) {
				c.refused = false // it is not used
			}
			dir := filepath.Join(root, "Maildir", c.sub)
			if err := os.Chown(dir, c.uid, 0); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			r := deliver(t, w, Target{Owner: bob, Root: root, Path: "Maildir"}, "x\n")
			if !c.refused {
				if r.Err != nil {
					t.Errorf("%s of uid %d: %v", c.sub, c.uid, r.Err)
				}
				continue
			}
			e := wantError(t, r, syscall.EPERM, "belongs to uid 64102")
			if e.Op != OpOpen || e.Path != dir {
				t.Errorf("error is %+v", e)
			}
		}
	})
}

func TestOwnerRefused(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		o   Owner
		min uint32
		say string
	}{
		{Owner{0, bobGID, nil}, 1, "uid 0"},
		{Owner{bobUID, 0, nil}, 1, "gid 0"},
		{Owner{bobUID, bobGID, []uint32{5000, 0}}, 1, "root's group"},
		{Owner{^uint32(0), bobGID, nil}, 1, "uid 4294967295"},
		{Owner{bobUID, ^uint32(0), nil}, 1, "gid 4294967295"},
		{Owner{999, bobGID, nil}, 0, "minimum of 1000"},
		{Owner{bobUID, bobGID, nil}, bobUID + 1, "minimum of 64102"},
	} {
		w := &Writer{MinUID: c.min, Before: func(op, path string) error {
			t.Errorf("%+v: step %s %s", c.o, op, path)
			return nil
		}}
		r := deliver(t, w, Target{Owner: &c.o, Root: root}, "x\n")
		if e := wantError(t, r, ErrOwner, c.say); e.Op != OpBecome {
			t.Errorf("op is %q", e.Op)
		}
	}
	if got := entries(t, root); len(got) > 0 {
		t.Errorf("made: %v", got)
	}
}

// Without the right to switch, the copy fails and says so.
func TestOwnerNotPermitted(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may; TestUnprivileged runs this as another account")
	}
	r := deliver(t, &Writer{MinUID: 1}, Target{Owner: &Owner{UID: bobUID, GID: bobGID}, Root: t.TempDir()}, "x\n")
	if e := wantError(t, r, syscall.EPERM); e.Op != OpBecome {
		t.Errorf("op is %q", e.Op)
	}
}

// The process is the owner already: nothing to switch, no minimum to keep.
func TestOwnerSame(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root gets no mail; TestUnprivileged runs this as another account")
	}
	w := &Writer{MinUID: ^uint32(0), Before: func(op, _ string) error {
		if op == OpBecome {
			t.Error("switched")
		}
		return nil
	}}
	delivered(t, w, Target{Owner: &Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, Root: t.TempDir()}, "x\n")
}

const restoreEnv = "MAILDIR_TEST_RESTORE"

// A thread that does not get its credentials back is never used again. The test
// has a process of its own, for the first thread of a process cannot end: it is
// parked for ever with the credentials it has.
func TestRestoreFails(t *testing.T) {
	needRoot(t, "switching to other accounts")
	if os.Getenv(restoreEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRestoreFails$")
		cmd.Env = append(os.Environ(), restoreEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	before := identity("/proc/self")
	dir := openDir(t)
	bob := home(t, dir, "bob", bobUID, bobGID, 0o700)
	var mu sync.Mutex
	lost := map[int]bool{}
	w := &Writer{Before: func(op, _ string) error {
		if op == OpRestore {
			mu.Lock()
			lost[syscall.Gettid()] = true
			mu.Unlock()
			return syscall.EPERM
		}
		return nil
	}}
	targets := make([]Target, 20)
	for i := range targets {
		targets[i] = Target{Owner: &Owner{UID: bobUID, GID: bobGID}, Root: bob, Path: "Maildir"}
	}
	w.Deliver(t.Context(), memory("x\n"), targets, func(_ int, r Result) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	})
	if len(lost) != 2*len(targets) { // one to write, one to name
		t.Errorf("%d threads for %d deliveries: some were used again", len(lost), len(targets))
	}
	// Whatever runs now runs as before, on any thread.
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if id := identity("/proc/thread-self"); id != before {
				t.Errorf("a goroutine runs as %s", id)
			}
		})
	}
	wg.Wait()
	// The threads end; the first of the process can only be parked.
	for tid := range lost {
		for range 1_000_000 {
			if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", tid)); err != nil || tid == os.Getpid() {
				delete(lost, tid)
				break
			}
			runtime.Gosched()
		}
	}
	if len(lost) > 0 {
		t.Errorf("threads %v are still there", lost)
	}
}

// A switch that fails half way is taken back.
func TestBecomeFails(t *testing.T) {
	needRoot(t, "switching to other accounts")
	before := identity("/proc/self")
	w := &Writer{Before: func(op, _ string) error {
		if op == OpBecome {
			return syscall.EPERM
		}
		return nil
	}}
	for range 10 {
		r := deliver(t, w, Target{Owner: &Owner{UID: bobUID, GID: bobGID}, Root: t.TempDir()}, "x\n")
		wantError(t, r, syscall.EPERM)
	}
	// More groups than the kernel takes.
	r := deliver(t, &Writer{}, Target{Owner: &Owner{bobUID, bobGID, make([]uint32, 1<<17)}, Root: t.TempDir()}, "x\n")
	wantError(t, r, ErrOwner) // gid 0 among them
	many := make([]uint32, 1<<17)
	for i := range many {
		many[i] = 70000
	}
	r = deliver(t, &Writer{}, Target{Owner: &Owner{bobUID, bobGID, many}, Root: t.TempDir()}, "x\n")
	wantError(t, r, syscall.EINVAL, "setgroups")
	wantThreads(t, before)
}

// unprivEnv is set for the children of TestUnprivileged, to the directory of
// homes if they may switch.
const unprivEnv = "MAILDIR_TEST_HOMES"

// The daemon as it is packaged: no root, CAP_SETUID and CAP_SETGID as ambient
// capabilities and nothing else; and a plain user without any.
func TestUnprivileged(t *testing.T) {
	needRoot(t, "running as another account")
	dir := openDir(t)
	home(t, dir, "bob", bobUID, bobGID, 0o700)
	home(t, dir, "amy", amyUID, amyGID, 0o700)
	binary := filepath.Join(dir, "maildir.test")
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(binary, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	tmp := home(t, dir, "tmp", 64000, 64000, 0o755)
	run := func(args string, caps []uintptr, env ...string) {
		cmd := exec.Command(binary, "-test.v", "-test.run="+args)
		cmd.Dir = tmp
		cmd.Env = append(env, "TMPDIR="+tmp)
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: 64000, Gid: 64000, NoSetGroups: false},
			AmbientCaps: caps,
		}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "--- SKIP") || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
	run("^(TestOwnerNotPermitted|TestOwnerSame|TestContent|TestCreate|TestReadOnlyDirectory)$", nil)
	const capSetgid, capSetuid = 6, 7
	run("^TestAmbientChild$", []uintptr{capSetgid, capSetuid}, unprivEnv+"="+dir)
}

func TestAmbientChild(t *testing.T) {
	dir := os.Getenv(unprivEnv)
	if dir == "" {
		t.Skip("runs as the child of TestUnprivileged")
	}
	before := identity("/proc/self")
	ways(t, func(t *testing.T, w *Writer) {
		var targets []Target
		for range 20 {
			targets = append(targets,
				Target{Owner: &Owner{UID: bobUID, GID: bobGID}, Root: dir + "/bob", Path: "Maildir"},
				Target{Owner: &Owner{UID: amyUID, GID: amyGID}, Root: dir + "/amy", Path: "Maildir"},
				Target{Root: t.TempDir(), Path: "Maildir"})
		}
		w.Deliver(t.Context(), memory("x\n"), targets, func(i int, r Result) {
			if r.Err != nil {
				t.Error(r.Err)
			}
		})
		r := deliver(t, w, Target{Root: dir + "/bob", Path: "Maildir"}, "x\n")
		wantError(t, r, syscall.EACCES, "uid 64000", "missing +x on "+dir+"/bob")
		wantThreads(t, before)
	})
}
