package powercut

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleEnv is set where this program runs again as a part of a test.
const roleEnv = "LMTPD_POWERCUT_ROLE"

// patience bounds every wait. No test depends on its value.
const patience = time.Minute

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(apart(m))
	case "tests":
		os.Exit(runTests(m))
	case "disk":
		fail(serveDisk(os.Args[1:]))
	case "faults":
		fail(serveFaults(os.Args[1:]))
	case "no-tmpfile":
		runtime.LockOSThread()
		fail(withoutUnnamedFiles(os.Args[1:]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(roleEnv)+":", err)
		os.Exit(1)
	}
}

// apart runs the tests in a mount namespace of their own: whatever becomes of
// them, their mounts go with the last of their processes.
func apart(m *testing.M) int {
	flag.Parse()
	if os.Getuid() != 0 {
		return m.Run() // each says that it is skipped
	}
	cmd := role("tests", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	// The signal comes when the thread ends that has started the process.
	runtime.LockOSThread()
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "a mount namespace of its own:", err)
		return 1
	}
	return 0
}

// program is the lmtpd under test.
var program string

func runTests(m *testing.M) int {
	runtime.LockOSThread()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "private mounts:", err)
		return 1
	}
	os.Unsetenv(roleEnv)
	if program = os.Getenv("LMTPD_TEST_BINARY"); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "lmtpd-powercut")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "lmtpd")
	build := exec.Command("go", "build", "-o", program, "./cmd/lmtpd")
	build.Dir = "../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "go build ./cmd/lmtpd:", err)
		return 1
	}
	return m.Run()
}

// points is how many points of a log are cut at; 0: only the short part runs.
func points(t *testing.T) int {
	t.Helper()
	s := os.Getenv("LMTPD_POWERCUT_POINTS")
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("LMTPD_POWERCUT_POINTS=%q is no number of points", s)
	}
	return n
}

func long(t *testing.T) int {
	t.Helper()
	n := points(t)
	if n == 0 {
		t.Skip("takes minutes: set LMTPD_POWERCUT_POINTS, or make test-powercut")
	}
	return n
}

// needFuse skips the test where the machine cannot run it.
func needFuse(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot mount")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no FUSE: %v", err)
	}
}

// need skips it where programs are missing.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("LMTPD_TEST_REQUIRE") == "1" {
				t.Fatalf("no %s here, although LMTPD_TEST_REQUIRE=1; test/setup.sh installs it", name)
			}
			t.Skipf("no %s here; test/setup.sh installs it", name)
		}
	}
}

// tempDir is short, for sockets, and open to the mail user.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pc")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
