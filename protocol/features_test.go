package protocol_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// goNames are the exported names of a directory's package, "Type.Field" and
// "Type.Method" among them, and the names of its tests.
func goNames(t *testing.T, dir string) (names, tests map[string]bool) {
	t.Helper()
	names, tests = make(map[string]bool), make(map[string]bool)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no Go files in %s", dir)
	}
	for _, path := range files {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		isTest := strings.HasSuffix(path, "_test.go")
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if isTest {
					tests[name] = true
					continue
				}
				if d.Recv != nil {
					of := d.Recv.List[0].Type
					if star, ok := of.(*ast.StarExpr); ok {
						of = star.X
					}
					name = of.(*ast.Ident).Name + "." + name
				}
				names[name] = true
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.ValueSpec:
						for _, n := range spec.Names {
							names[n.Name] = !isTest
						}
					case *ast.TypeSpec:
						names[spec.Name.Name] = !isTest
						var fields *ast.FieldList
						switch typ := spec.Type.(type) {
						case *ast.StructType:
							fields = typ.Fields
						case *ast.InterfaceType:
							fields = typ.Methods
						}
						if fields == nil {
							continue
						}
						for _, f := range fields.List {
							for _, n := range f.Names {
								names[spec.Name.Name+"."+n.Name] = !isTest
							}
						}
					}
				}
			}
		}
	}
	return names, tests
}

// TestFeatures: every name, test, dialog and script that FEATURES.md has exists, and
// no behaviour is without any.
func TestFeatures(t *testing.T) {
	table, err := os.ReadFile("FEATURES.md")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{"": ".", "relay": "relay", "protocoltest": "protocoltest", "delivery": "../delivery", "test": "../test"}
	names, tests := make(map[string]map[string]bool), make(map[string]map[string]bool)
	for pkg, dir := range dirs {
		names[pkg], tests[pkg] = goNames(t, dir)
	}
	// find looks a name up that may have a package before it.
	find := func(in map[string]map[string]bool, name string) bool {
		if pkg, rest, ok := strings.Cut(name, "."); ok && dirs[pkg] != "" {
			return in[pkg][rest]
		}
		return in[""][name]
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(string(table)) {
		cells := strings.Split(line, " | ")
		number, err := strconv.Atoi(strings.TrimPrefix(cells[0], "| "))
		if err != nil || !strings.HasPrefix(line, "| ") {
			continue
		}
		rows++
		if number != rows || len(cells) != 4 {
			t.Errorf("row %d: %d cells: %s", rows, len(cells), line)
			continue
		}
		with, shown := quoted.FindAllStringSubmatch(cells[2], -1), quoted.FindAllStringSubmatch(cells[3], -1)
		if len(with) == 0 || len(shown) == 0 {
			t.Errorf("row %d has no name, or no test", number)
		}
		for _, m := range with {
			if !find(names, m[1]) {
				t.Errorf("row %d: there is no %s", number, m[1])
			}
		}
		for _, m := range shown {
			ok := false
			switch filepath.Ext(m[1]) {
			case ".txt":
				_, err := os.Stat(filepath.Join("testdata/dialogs", m[1]))
				ok = err == nil
			case ".txtar":
				_, err := os.Stat(filepath.Join("../cmd/lmtpd/testdata/script", m[1]))
				ok = err == nil
			default:
				kind := m[1][strings.LastIndexByte(m[1], '.')+1:]
				ok = find(tests, m[1]) && slices.ContainsFunc([]string{"Test", "Fuzz", "Example"}, func(p string) bool { return strings.HasPrefix(kind, p) })
			}
			if !ok {
				t.Errorf("row %d: there is no test %s", number, m[1])
			}
		}
	}
	if rows != 60 {
		t.Errorf("%d rows, want 60", rows)
	}
}
