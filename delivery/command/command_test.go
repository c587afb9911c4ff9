package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// runner is one that may run programs where the test is root.
func runner() *Runner {
	r := &Runner{}
	if os.Geteuid() == 0 {
		r.Account = &Account{UID: 64101, GID: 64201, Groups: []uint32{64202}}
	}
	return r
}

func TestRun(t *testing.T) {
	t.Setenv("SECRET", "x")
	r := runner()
	res, err := r.Run(t.Context(), []string{"/bin/sh", "-c", `cat; echo "$1|$2|$PWD|$SECRET|$LC_ALL"; exit 3`, "sh", "a b", "$(id)"}, strings.NewReader("in\n"))
	if err != nil || res.Status != 3 || res.Output != "in\na b|$(id)|/||C\n" {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = r.Run(t.Context(), []string{"/bin/cat"}, nil)
	if err != nil || res != (Result{}) {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = r.Run(t.Context(), []string{"/bin/sh", "-c", "kill -9 $$"}, nil)
	if err != nil || res.Status != -1 {
		t.Errorf("%+v, %v", res, err)
	}
	for _, argv := range [][]string{nil, {"cat"}, {"/nonexistent"}, {"/etc/passwd"}} {
		if res, err := r.Run(t.Context(), argv, nil); err == nil || res.Status != -1 {
			t.Errorf("%q: %+v, %v", argv, res, err)
		}
	}
	r = runner()
	r.Output, r.Env = 10, []string{"WORD=word"}
	res, err = r.Run(t.Context(), []string{"/bin/sh", "-c", `i=0; while [ $i -lt 5000 ]; do echo "$WORD"; i=$((i+1)); done`}, nil)
	if err != nil || res.Output != "word\nword\n" || res.Status != 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// Nothing ever runs as root, and nothing keeps root's groups.
func TestAccount(t *testing.T) {
	for _, a := range []*Account{{UID: 0, GID: 1}, {UID: 1, GID: 0}} {
		if _, err := (&Runner{Account: a}).Run(t.Context(), []string{"/bin/true"}, nil); !errors.Is(err, ErrRoot) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	if os.Geteuid() != 0 {
		own := &Account{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
		if res, err := (&Runner{Account: own}).Run(t.Context(), []string{"/bin/true"}, nil); err != nil || res.Status != 0 {
			t.Errorf("%+v, %v", res, err)
		}
		if _, err := (&Runner{Account: &Account{UID: own.UID + 1, GID: own.GID}}).Run(t.Context(), []string{"/bin/true"}, nil); !errors.Is(err, syscall.EPERM) {
			t.Error(err)
		}
		return
	}
	if _, err := (&Runner{}).Run(t.Context(), []string{"/bin/true"}, nil); !errors.Is(err, ErrRoot) {
		t.Error(err)
	}
	res, err := runner().Run(t.Context(), []string{"/usr/bin/id"}, nil)
	if err != nil || res.Output != "uid=64101 gid=64201 groups=64201,64202\n" {
		t.Errorf("%+v, %v", res, err)
	}
}

// A program that takes too long is ended with its children, and so is one that nobody
// waits for any more.
func TestTimeout(t *testing.T) {
	dir, err := os.MkdirTemp("", "command")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	script := []string{"/bin/sh", "-c", "sleep 1000 & echo $! >" + dir + "/child; wait"}
	gone := func() {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, "child"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		for begin := time.Now(); ; time.Sleep(time.Millisecond) { // the kernel takes its time
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ") {
				return
			}
			if time.Since(begin) > 10*time.Second {
				t.Fatalf("the child is still there: %s", stat)
			}
		}
	}
	r := runner()
	r.Timeout = 500 * time.Millisecond
	if _, err := r.Run(t.Context(), script, nil); !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	gone()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	r = runner()
	over := make(chan error, 1)
	os.Remove(filepath.Join(dir, "child"))
	go func() {
		_, err := r.Run(ctx, script, nil)
		over <- err
	}()
	for {
		if text, _ := os.ReadFile(filepath.Join(dir, "child")); len(text) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel(why)
	if err := <-over; !errors.Is(err, why) {
		t.Error(err)
	}
	gone()
	// One that ends well and leaves a child behind that holds its output.
	r = runner()
	res, err := r.Run(t.Context(), []string{"/bin/sh", "-c", "sleep 1000 & echo $! >" + dir + "/child; echo done"}, nil)
	if err != nil || res.Status != 0 || res.Output != "done\n" {
		t.Errorf("%+v, %v", res, err)
	}
	gone()
}

// No more than Parallel run at a time; who waits in vain is told.
func TestParallel(t *testing.T) {
	dir, err := os.MkdirTemp("", "command")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	r := runner()
	r.Parallel = 2
	script := []string{"/bin/sh", "-c", "mkdir " + dir + "/1 || mkdir " + dir + "/2 || exit 9; sleep 0.05; rmdir " + dir + "/2 || rmdir " + dir + "/1"}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if res, err := r.Run(t.Context(), script, nil); err != nil || res.Status == 9 {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	all.Wait()
	r.slots <- struct{}{}
	r.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Run(ctx, []string{"/bin/true"}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Ambient capabilities are for programs that are started, and this one has them for
// other reasons.
func TestNoAmbientCapabilities(t *testing.T) {
	if os.Getenv("AMBIENT_TEST") != "" {
		status := func() string {
			res, err := (&Runner{}).Run(t.Context(), []string{"/bin/grep", "^Cap[PEA]", "/proc/self/status"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return res.Output
		}
		own, err := os.ReadFile("/proc/self/status")
		if err != nil || !strings.Contains(string(own), "\nCapAmb:\t00000000000000c0\n") {
			t.Fatalf("%v: no ambient capabilities in\n%s", err, own)
		}
		if got := status(); strings.Count(got, "\t0000000000000000\n") != 3 {
			t.Errorf("a program has\n%s", got)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(dir+"/test", program, 0o755)
	}
	for d := dir; err == nil && d != "/"; d = filepath.Dir(d) {
		err = os.Chmod(d, 0o755|os.ModeSticky)
		if filepath.Dir(d) == os.TempDir() {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid=64101", "--regid=64201", "--clear-groups", "--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid",
		dir+"/test", "-test.run=^TestNoAmbientCapabilities$", "-test.v")
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "AMBIENT_TEST=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestExpand(t *testing.T) {
	values := map[string]string{"address": "bob@example.org", "empty": "", "dash": "-rf", "nul": "a\x00b", "brace": "{dash}"}
	for arg, want := range map[string]string{
		"x": "x", "{address}": "bob@example.org", "--to={address}": "--to=bob@example.org", "<{address}> {empty}{address}": "<bob@example.org> bob@example.org",
		"{{address}": "{address}", "a}b": "a}b", "x{dash}": "x-rf", "-{dash}": "--rf", "{brace}": "{dash}", "": "", "{empty}": "",
	} {
		if got, err := Expand([]string{arg}, values); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%q: %q, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"{", "{x}", "{address", "{nul}", "{dash}", "{empty}{dash}", "{Address}"} {
		if got, err := Expand([]string{"/bin/x", arg}, values); err == nil || errors.Is(err, ErrOption) != strings.Contains(arg, "dash") {
			t.Errorf("%q: %q, %v", arg, got, err)
		}
	}
	if got, err := Expand([]string{"/bin/x", "-a", "--", "{dash}", "-{dash}"}, values); err != nil || !slices.Equal(got, []string{"/bin/x", "-a", "--", "-rf", "--rf"}) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Expand([]string{"/bin/x", "{dash}", "--"}, values); !errors.Is(err, ErrOption) {
		t.Error(err)
	}
	names := []string{"address"}
	if err := Check([]string{"/bin/x", "-a", "{address}"}, names); err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{nil, {"x"}, {""}, {"/bin/{address}"}, {"/bin/x", "{user}"}} {
		if Check(args, names) == nil {
			t.Errorf("%q is good", args)
		}
	}
}

// Whatever the values are, there are as many arguments as before, and none of them has
// become an option.
func FuzzExpand(f *testing.F) {
	f.Add("--to={address}", "bob@example.org")
	f.Add("{address}", "-rf")
	f.Add("{{address}", "}")
	f.Fuzz(func(t *testing.T, arg, value string) {
		args, err := Expand([]string{arg}, map[string]string{"address": value})
		if err != nil {
			return
		}
		if len(args) != 1 || strings.Contains(args[0], "\x00") || strings.HasPrefix(args[0], "-") && !strings.HasPrefix(arg, "-") {
			t.Errorf("%q with %q: %q", arg, value, args)
		}
	})
}

// A program that has become root cannot be killed by others: its delivery ends all the
// same, and nothing is read for it any more.
func TestUnkillable(t *testing.T) {
	const by = "LMTPD_TEST_UNKILLABLE"
	if dir := os.Getenv(by); dir != "" {
		r := &Runner{Timeout: 200 * time.Millisecond, Parallel: 1}
		in := &endless{}
		_, err := r.Run(t.Context(), []string{dir + "/setpriv", "--reuid", "0", "/bin/sh", "-c", "echo $$ >" + dir + "/pid; head -c 1 >&2; exec sleep 3600"}, in)
		if !errors.Is(err, ErrTimeout) || !errors.Is(err, errGoesOn) {
			t.Errorf("got %v", err)
		}
		in.over.Store(true)
		if len(r.slots) != 1 {
			t.Error("its place is free")
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("makes a setuid program: needs root")
	}
	dir, err := os.MkdirTemp("", "command")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{self: 0o755, "/usr/bin/setpriv": 0o755 | os.ModeSetuid} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(copied, text, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(copied, mode); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(dir, filepath.Base(self)), "-test.run=^TestUnkillable$", "-test.timeout=60s")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), by+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 64101, Gid: 64201}}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // the program may hold the output
	runErr := cmd.Run()
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatalf("it was not started: %v, %s", err, out.String())
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("it has not gone on: %v", err)
	}
	if runErr != nil {
		t.Errorf("%v: %s", runErr, out.String())
	}
}

// endless is input that must not be read once it is over.
type endless struct{ over atomic.Bool }

func (e *endless) Read(p []byte) (int, error) {
	if e.over.Load() {
		panic("read after the end")
	}
	return len(p), nil
}
