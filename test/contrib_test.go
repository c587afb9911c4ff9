package test

import (
	"os"
	"path/filepath"
	"regexp"
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

// TestLinks: what the documents link to within the repository is there.
func TestLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"README.md", "contrib/postfix/README.md", "contrib/exim/README.md", "protocol/FEATURES.md", "protocol/COMPARISON.md", "bench/RESULTS.md"} {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(readFile(t, "../"+name), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
