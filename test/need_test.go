package test

import (
	"os"
	"os/exec"
	"testing"
)

// require is set where a missing program is a fault of the machine (CI), not
// a reason to skip.
var require = os.Getenv("LMTPD_TEST_REQUIRE") == "1"

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
		switch {
		case err != nil && require:
			t.Fatalf("no %s here, although LMTPD_TEST_REQUIRE=1; test/setup.sh installs it", name)
		case err != nil:
			t.Skipf("no %s here; test/setup.sh installs it", name)
		}
		paths[i] = path
	}
	return paths
}

// needRoot is for what only root may do: start Postfix, mount, change user. It
// is no program that could be installed, so the test is skipped in any case.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: cannot " + what)
	}
}
