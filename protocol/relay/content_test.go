package relay

import (
	"bytes"
	"strings"
	"testing"
)

// slowContent is what content makes of a message, done on the whole of it.
func slowContent(message, field string) string {
	m := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(message, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	if field == "" {
		return m
	}
	if strings.HasPrefix(m, "\r\n") {
		return field + m
	}
	if i := strings.Index(m, "\r\n\r\n"); i >= 0 {
		return m[:i+2] + field + m[i+2:]
	}
	if m != "" && !strings.HasSuffix(m, "\r\n") {
		m += "\r\n"
	}
	return m + field
}

func passOn(t *testing.T, message, field string, piece int) string {
	t.Helper()
	var out bytes.Buffer
	c := &content{dst: &out, field: field}
	for rest := []byte(message); len(rest) > 0; {
		n := min(piece, len(rest))
		if w, err := c.Write(rest[:n]); w != n || err != nil {
			t.Fatalf("Write: %d, %v", w, err)
		}
		rest = rest[n:]
	}
	if err := c.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func FuzzContent(f *testing.F) {
	for _, m := range []string{
		"", "A: b", "A: b\r\n", "A: b\r\n\r\nc\r\n", "\r\n\r\n", "\n", "\r", "A\n\nb", "A\r\rb", "A\r\r\nb\r\n", "A\r\n\r", "a\r\n.\r\n", "A: b\r\n\r\nc\rd\ne\r\n\r\r\n\n",
	} {
		for piece := 1; piece < 4; piece++ {
			f.Add(m, "X-Peer: x\r\n", piece)
			f.Add(m, "", piece)
		}
		f.Add(m, "", 100)
	}
	f.Fuzz(func(t *testing.T, message, field string, piece int) {
		if piece < 1 || field != "" && field != "X: y\r\n" && field != "X-Peer: x\r\n" {
			return
		}
		if got, want := passOn(t, message, field, piece), slowContent(message, field); got != want {
			t.Errorf("%q with %q in pieces of %d: %q, want %q", message, field, piece, got, want)
		}
	})
}
