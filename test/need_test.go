package test

import (
	"os"
	"os/exec"
	"testing"
)

// require is set where a missing program is a fault of the machine (CI), not
// a reason to skip.
var require = os.Getenv("LMTPD_TEST_REQUIRE") == "1"

// skipOrFail ends the test: skipped, or failed where nothing may be missing.
func skipOrFail(t *testing.T, why string) {
	t.Helper()
	if require {
		t.Fatalf("%s, and LMTPD_TEST_REQUIRE=1", why)
	}
	t.Skip(why)
}

// need returns the paths of programs that setup.sh installs.
func need(t *testing.T, names ...string) []string {
	t.Helper()
	paths := make([]string, len(names))
	for i, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			// An unprivileged PATH lacks it.
			path, err = exec.LookPath("/usr/sbin/" + name)
		}
		if err != nil {
			skipOrFail(t, "no "+name+" here (test/setup.sh installs it)")
		}
		paths[i] = path
	}
	return paths
}

// needRoot is for what only root may do: start Postfix, mount, change user.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		skipOrFail(t, "not root: cannot "+what)
	}
}
