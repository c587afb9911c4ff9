package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const childEnv = "CONFINE_TEST_DIR"

// static returns this test as a program without cgo, which alone can be confined.
func static(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "confine.test")
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != syscall.ENOTSUP {
		// This one has no cgo either, and may be on a machine without Go.
		program, err := os.ReadFile("/proc/self/exe")
		if err == nil {
			err = os.WriteFile(binary, program, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		return binary
	}
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("no static test binary: %v\n%s", err, out)
	}
	return binary
}

// child runs a test of this package confined, in a process of its own.
func child(t *testing.T, test, dir string, attr *syscall.SysProcAttr) {
	t.Helper()
	cmd := exec.Command(static(t), "-test.v", "-test.run=^"+test+"$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "missed:") {
			t.Log(line)
		}
	}
}

func childDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(childEnv)
	if dir == "" {
		t.Skip("runs as the child of another test")
	}
	return dir
}

// status is a line of /proc for each thread.
func status(t *testing.T, key string) (all []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads", err)
	}
	for _, name := range tasks {
		b, _ := os.ReadFile(name)
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, key+":"); ok {
				all = append(all, strings.TrimSpace(v))
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(all)))
}

func TestConfine(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"read", "write", "none", "socket"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, sub), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, sub, "file"), []byte("content"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	child(t, "TestConfinedChild", dir, nil)
}

func TestConfinedChild(t *testing.T) {
	dir := childDir(t)
	// Threads that exist before must be confined as those that come later.
	release := make(chan struct{})
	for range 5 {
		go func() {
			runtime.LockOSThread()
			<-release
		}()
	}
	r := Plan{
		Capabilities: []Capability{SetUID, SetGID},
		Paths: []Path{
			{"/proc", Read}, {"/dev/null", Read | Write | Dirs}, {"/usr", Read | Execute}, {"/lib", Read | Execute}, {"/lib64", Read | Execute}, {"/bin", Read | Execute},
			{dir + "/read", Read}, {dir + "/write", List | Write | Dirs | Remove}, {dir + "/socket", Sockets | Remove},
			{dir + "/missing", Read}, {dir + "/none/file/x", Read}, {dir + "/read/file", Read | Dirs},
		},
	}.Apply()
	close(release)
	for _, err := range r.Missed {
		fmt.Println("missed:", err)
	}
	if nnp := status(t, "NoNewPrivs"); !slices.Equal(nnp, []string{"1"}) {
		t.Errorf("no_new_privs is %q", nnp)
	}
	want := "0000000000000000"
	if os.Geteuid() == 0 {
		want = "00000000000000c0"
		if len(r.Capabilities) != 2 || fmt.Sprint(r.Capabilities) != "[cap_setgid cap_setuid]" {
			t.Errorf("kept %v", r.Capabilities)
		}
		if got := status(t, "CapBnd"); !slices.Equal(got, []string{want}) {
			t.Errorf("CapBnd is %q", got)
		}
	}
	for _, set := range []string{"CapPrm", "CapEff"} {
		if got := status(t, set); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %s", set, got, want)
		}
	}
	for _, set := range []string{"CapInh", "CapAmb"} {
		if got := status(t, set); !slices.Equal(got, []string{"0000000000000000"}) {
			t.Errorf("%s is %q", set, got)
		}
	}
	if n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); n != 0 || err != nil {
		t.Errorf("dumpable is %d (%v)", n, err)
	}
	if r.Landlock == 0 {
		t.Skip("no Landlock here")
	}
	denied := func(what string, err error, want bool) {
		t.Helper()
		if errors.Is(err, syscall.EACCES) != want || !want && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for sub, refused := range map[string]bool{"read": false, "write": true, "none": true, "socket": true} {
		_, err := os.ReadFile(filepath.Join(dir, sub, "file"))
		denied("reading in "+sub, err, refused)
	}
	for sub, refused := range map[string]bool{"read": true, "write": false, "none": true, "socket": true} {
		at := filepath.Join(dir, sub)
		err := os.WriteFile(filepath.Join(at, "new"), []byte("x"), 0o600)
		denied("writing in "+sub, err, refused)
		denied("a directory in "+sub, os.Mkdir(filepath.Join(at, "dir"), 0o700), refused)
		if err == nil {
			denied("moving in "+sub, os.Rename(at+"/new", at+"/dir/moved"), false)
			denied("removing in "+sub, os.Remove(at+"/dir/moved"), false)
			_, err := os.ReadDir(at)
			denied("listing "+sub, err, false)
			fd, err := unix.Open(at, unix.O_TMPFILE|unix.O_WRONLY, 0o600)
			denied("an unnamed file in "+sub, err, false)
			denied("naming it", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, at+"/named", unix.AT_SYMLINK_FOLLOW), false)
		}
	}
	for sub, refused := range map[string]bool{"socket": false, "write": true} {
		ln, err := net.Listen("unix", filepath.Join(dir, sub, "s"))
		denied("a socket in "+sub, err, refused)
		if err == nil {
			ln.Close()
		}
	}
	// Children are confined too, and have no capability.
	out, err := exec.Command("/bin/cat", "/proc/self/status").Output()
	if err != nil || os.Geteuid() != 0 && !strings.Contains(string(out), "CapEff:\t0000000000000000") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command("/bin/cat", dir+"/none/file").Output(); err == nil {
		t.Errorf("a child reads %q", out)
	}
}

// As the packaged writer: not root, two ambient capabilities.
func TestConfineAmbient(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: running as another account")
	}
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	binary := static(t)
	for d := filepath.Dir(binary); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary, "-test.v", "-test.run=^TestAmbientChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 64000, Gid: 64000},
		AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_KILL},
	}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAmbientChild(t *testing.T) {
	childDir(t)
	r := Plan{Capabilities: []Capability{SetUID, SetGID}}.Apply()
	if len(r.Missed) > 0 {
		t.Error(r.Missed)
	}
	for set, want := range map[string]string{
		"CapPrm": "00000000000000c0", "CapEff": "00000000000000c0", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if got := status(t, set); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %s", set, got, want)
		}
	}
	out, err := exec.Command("/bin/cat", "/proc/self/status").Output()
	if err != nil || !strings.Contains(string(out), "CapPrm:\t0000000000000000") || !strings.Contains(string(out), "CapEff:\t0000000000000000") {
		t.Errorf("a child has capabilities: %v\n%s", err, out)
	}
}

// With cgo nothing is done by half.
func TestCgo(t *testing.T) {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno != syscall.ENOTSUP {
		t.Skip("this test has no cgo")
	}
	r := Plan{Paths: []Path{{"/proc", Read}}}.Apply()
	if len(r.Missed) != 1 || !errors.Is(r.Missed[0], ErrCgo) || r.Landlock != 0 {
		t.Errorf("%+v", r)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Error(err)
	}
}
