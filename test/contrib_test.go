package test

import (
	"os"
	"strings"
	"testing"
)

// TestContribPostfixComplete: each file in contrib/postfix is explained in its
// README and used by a test in this directory.
func TestContribPostfixComplete(t *testing.T) {
	t.Parallel()
	readme := contrib(t, "README.md")
	var tests strings.Builder
	for _, f := range dir(t, ".") {
		if strings.HasSuffix(f, "_test.go") {
			tests.WriteString(readFile(t, f))
		}
	}
	for _, f := range dir(t, "../contrib/postfix") {
		if !strings.Contains(readme, "`"+f+"`") && f != "README.md" {
			t.Errorf("README.md does not mention %s", f)
		}
		if !strings.Contains(tests.String(), `"`+f+`"`) {
			t.Errorf("no test uses %s", f)
		}
	}
}

func dir(t *testing.T, name string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
