package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// Whatever the file holds, the answer is a configuration that passes its own checks, or
// errors that each fit on one line, name the file and are in the order of its lines.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/badconfig/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "lmtpd.toml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig("fuzz.toml", data)
		if err == nil {
			c.validate()
			if len(c.doc.errs) > 0 {
				t.Errorf("accepted with faults: %v", c.doc.errs)
			}
			return
		}
		var errs configErrors
		if !errors.As(err, &errs) || len(errs) == 0 || c != nil {
			t.Fatalf("got %v, %#v", c, err)
		}
		last := 0
		lines := strings.Count(string(data), "\n") + 1
		for _, e := range errs {
			if e.File != "fuzz.toml" || e.Problem == "" || e.Line < last || e.Line > lines {
				t.Errorf("got %#v after line %d of %d", e, last, lines)
			}
			last = e.Line
			if text := e.Error(); strings.ContainsFunc(text, unicode.IsControl) || len(text) > 600 {
				t.Errorf("got %q", text)
			}
		}
	})
}
