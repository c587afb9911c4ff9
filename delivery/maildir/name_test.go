package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var nameForm = regexp.MustCompile(`^(\d+)\.M(\d{6})P(\d+)Q\d+R[0-9a-f]{16}\.([^,/:]+),S=(\d+),W=(\d+)$`)

func TestName(t *testing.T) {
	w := &Writer{Hostname: "mx.example.org", Clock: func() time.Time { return time.Unix(1700000000, 1234567) }}
	for _, c := range []struct {
		header, body string
		size, vsize  int
	}{
		{"", "", 0, 0},
		{"A: b\n", "c\n", 7, 9},
		{"A: b\r\n", "c\r\n", 9, 9},
		{"A: b\n", "c\r\nd\re\n", 12, 14},
		{"A: b\n", "no end", 11, 12},
	} {
		r := delivered(t, w, Target{Root: t.TempDir(), Header: []byte(c.header)}, c.body)
		m := nameForm.FindStringSubmatch(filepath.Base(r.File))
		want := []string{"1700000000", "001234", fmt.Sprint(os.Getpid()), "mx.example.org", fmt.Sprint(c.size), fmt.Sprint(c.vsize)}
		if m == nil || fmt.Sprint(m[1:]) != fmt.Sprint(want) {
			t.Errorf("%q: name %s, want the parts %v", c.header+c.body, filepath.Base(r.File), want)
		}
	}
}

func TestHostPart(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "localhost",
		"mx-1.example.org":        "mx-1.example.org",
		"a/b:c":                   `a\057b\072c`,
		"a,S=1":                   `a\054S\0751`,
		"ü":                       `\303\274`,
		"a b\n":                   `a\040b\012`,
		strings.Repeat("x", 1000): strings.Repeat("x", 97),
	} {
		if got := hostPart(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// A thousand deliveries at once into one mailbox, by two writers as two
// processes would, give a thousand files.
func TestUnique(t *testing.T) {
	ways(t, func(t *testing.T, w *Writer) {
		const each = 500
		root := t.TempDir()
		frozen := func() time.Time { return time.Unix(1700000000, 0) }
		writers := []*Writer{{Clock: frozen, Before: w.Before, Durability: None}, {Clock: frozen, Before: w.Before, Durability: None}}
		var wg sync.WaitGroup
		var names sync.Map
		for n, w := range writers {
			targets := make([]Target, each)
			for i := range targets {
				targets[i] = Target{Root: root, Path: "home/Maildir", Header: fmt.Appendf(nil, "%d %d\n", n, i)}
			}
			wg.Go(func() {
				w.Deliver(t.Context(), memory("body\n"), targets, func(i int, r Result) {
					if r.Err != nil {
						t.Error(r.Err)
					}
					if _, twice := names.LoadOrStore(r.File, true); twice {
						t.Errorf("%s was given twice", r.File)
					}
				})
			})
		}
		wg.Wait()
		got := messages(t, filepath.Join(root, "home/Maildir"))
		contents := map[string]bool{}
		for _, c := range got {
			contents[c] = true
		}
		if len(got) != 2*each || len(contents) != 2*each {
			t.Errorf("%d files, %d different, want %d", len(got), len(contents), 2*each)
		}
	})
}

func TestValidPath(t *testing.T) {
	long := strings.Repeat("x", 255)
	for p, want := range map[string]bool{
		"": true, "Maildir": true, "a/b/c": true, "...": true, ".hidden": true, "a b": true, long: true,
		"/": false, "/a": false, "a/": false, "a//b": false, ".": false, "..": false, "a/../b": false,
		"./a": false, "a/.": false, "a\x00b": false, long + "x": false,
	} {
		if got := validPath(p); got != want {
			t.Errorf("path %q: %v", p, got)
		}
	}
	for f, want := range map[string]bool{
		".a": true, ".a.b": true, ".a b": true, ".&AOQ-": true, ".-": true,
		"": false, ".": false, "..": false, "a": false, ".a.": false, "..a": false, ".a..b": false,
		".a/b": false, ".a/../b": false, ".\x00": false, ".a\n": false, "." + long: false,
	} {
		if got := validFolder(f); got != want {
			t.Errorf("folder %q: %v", f, got)
		}
	}
	for p, want := range map[string]bool{"/": true, "/home/a": true, "": false, "home": false, "/a\x00b": false} {
		if got := validRoot(p); got != want {
			t.Errorf("root %q: %v", p, got)
		}
	}
}

// FuzzNames: whatever passes as a path or folder stays below the root, and
// whatever a host is called, a file name stays one name with its S= and W=.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", ".", "..", "a/../../b", ".lists", ".a..b", "mx.example.org", "a,S=9,W=9", "\x00", "é/:", strings.Repeat("y", 300)} {
		f.Add(s)
	}
	w := &Writer{}
	f.Fuzz(func(t *testing.T, s string) {
		const root = "/srv/mail"
		if validPath(s) {
			joined := filepath.Join(root, s, "new")
			if s != "" && joined != root+"/"+s+"/new" || s == "" && joined != root+"/new" {
				t.Errorf("path %q is %q below the root", s, joined)
			}
		}
		if validFolder(s) && (filepath.Join(root, s) != root+"/"+s || filepath.Base(s) != s || !validPath(s)) {
			t.Errorf("folder %q is no single name", s)
		}
		host := &Writer{Hostname: s, Clock: w.Clock}
		name := host.newName("", 12, 34)
		if !nameForm.MatchString(name) || len(name) > nameMax-64 {
			t.Errorf("host %q gives %q", s, name)
		}
		if !strings.HasSuffix(name, ",S=12,W=34") {
			t.Errorf("host %q hides the sizes in %q", s, name)
		}
		n := lines([]byte(s))
		if crlf := strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n"); int64(len(s))+n != int64(len(crlf)) {
			t.Errorf("%q: %d lines, but %d octets with CRLF", s, n, len(crlf))
		}
	})
}
