package protocol

import (
	"strings"
	"testing"
)

// normalize is what a normalizer must come to.
func normalize(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r", "\n"), "\n", "\r\n")
}

func checkNormalizer(t testing.TB, data string, cut int) {
	t.Helper()
	var n normalizer
	got := string(n.convert([]byte(data[:cut]), false))
	got += string(n.convert([]byte(data[cut:]), true))
	if want := normalize(data); got != want {
		t.Fatalf("%q cut at %d: got %q, want %q", data, cut, got, want)
	}
}

func TestNormalizer(t *testing.T) {
	const alphabet = "\r\nx"
	var try func(string)
	try = func(s string) {
		for cut := range len(s) + 1 {
			checkNormalizer(t, s, cut)
		}
		if len(s) < 7 {
			for _, c := range alphabet {
				try(s + string(c))
			}
		}
	}
	try("")
}

func FuzzNormalizer(f *testing.F) {
	f.Add("a\rb\nc\r\nd\r\r\n\n\r", 3)
	f.Fuzz(func(t *testing.T, data string, cut int) {
		if cut >= 0 && cut <= len(data) {
			checkNormalizer(t, data, cut)
		}
	})
}
