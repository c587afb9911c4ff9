package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// goPackage is what `go list` says about a package.
type goPackage struct {
	ImportPath, Dir, Name, Doc string
	Imports                    []string
	TestGoFiles, XTestGoFiles  []string
}

const module = "github.com/lmtpd/lmtpd"

// Imports run one way: cmd/lmtpd -> delivery -> delivery/maildir, protocol, userdb.
// For each room, what it may import besides the standard library; a room that is
// not here has no business in the tree.
var mayImport = map[string][]string{
	"cmd/lmtpd": {
		module + "/delivery", module + "/delivery/maildir", module + "/delivery/pipe", module + "/delivery/relay", module + "/delivery/writer", module + "/delivery/command", module + "/confine", module + "/protocol", module + "/protocol/relay", module + "/userdb",
		"github.com/spf13/cobra", "github.com/pelletier/go-toml/v2", "github.com/coreos/go-systemd/v22",
		"github.com/prometheus/client_golang",
	},
	"confine":               {"golang.org/x/sys/unix"},
	"delivery/command":      {},
	"delivery/writer":       {module + "/delivery/maildir", "golang.org/x/sys/unix"},
	"delivery":              {module + "/delivery/maildir", module + "/delivery/command", module + "/protocol", module + "/userdb"},
	"delivery/pipe":         {module + "/delivery", module + "/delivery/command", module + "/protocol"},
	"delivery/relay":        {module + "/delivery", module + "/protocol"},
	"delivery/maildir":      {"golang.org/x/sys/unix", "github.com/emersion/go-maildir"},
	"protocol":              {},
	"protocol/relay":        {module + "/protocol", "github.com/emersion/go-smtp"},
	"protocol/protocoltest": {module + "/protocol"},
	"userdb":                {"golang.org/x/sys/unix"},
	"userdb/userdbtest":     {module + "/userdb"},
	"test":                  {},
	"test/package/load":     {},
	"test/package/inject":   {"golang.org/x/sys/unix"},
	"test/powercut":         {}, // a module of its own, see its go.mod
	"bench":                 {},
	"bench/discard":         {module + "/protocol"},
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := mayImport[room]
		if !known {
			t.Errorf("%s: not a room of this house; if it belongs here, say in this test what it may import", room)
			continue
		}
		for _, i := range p.Imports {
			if isStandard(i) || slices.ContainsFunc(allowed, func(a string) bool {
				// The rooms are named exactly; a foreign module with all its packages.
				return i == a || !strings.HasPrefix(a, module) && strings.HasPrefix(i, a+"/")
			}) {
				continue
			}
			t.Errorf("%s imports %s", room, i)
		}
	}
}

func TestEveryPackageHasItsComment(t *testing.T) {
	for _, p := range listPackages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + p.ImportPath[strings.LastIndexByte(p.ImportPath, '/')+1:] + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: the package comment is %q; it should begin with %q", p.ImportPath, p.Doc, want)
		}
	}
}

func TestEveryPackageHasTests(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Name == "userdbtest" {
			continue // it is tests, which userdb runs
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) == 0 {
			t.Errorf("%s has no test file", p.ImportPath)
		}
	}
}

func listPackages(t *testing.T) (all []goPackage) {
	t.Helper()
	const list = "-json=ImportPath,Dir,Name,Doc,Imports,TestGoFiles,XTestGoFiles"
	out, err := exec.Command("go", "list", list, module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	nested, err := exec.Command("go", "-C", "powercut", "list", list, "./...").Output()
	if err != nil {
		t.Fatalf("go list in test/powercut: %v", err)
	}
	out = append(out, nested...)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// isStandard: only the standard library's paths have no dot in their first element.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
