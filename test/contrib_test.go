package test

import (
	"os"
	"strings"
	"testing"
)

// TestContribComplete: each file in contrib/postfix and contrib/exim is
// explained in its README and used by a test in this directory.
func TestContribComplete(t *testing.T) {
	t.Parallel()
	var tests strings.Builder
	for _, f := range dir(t, ".") {
		if strings.HasSuffix(f, "_test.go") {
			tests.WriteString(readFile(t, f))
		}
	}
	for _, mta := range []string{"../contrib/postfix", "../contrib/exim"} {
		readme := readFile(t, mta+"/README.md")
		for _, f := range dir(t, mta) {
			if f == "README.md" {
				continue
			}
			if !strings.Contains(readme, "`"+f+"`") {
				t.Errorf("%s/README.md does not mention %s", mta, f)
			}
			if !strings.Contains(tests.String(), `"`+f+`"`) {
				t.Errorf("no test uses %s of %s", f, mta)
			}
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
