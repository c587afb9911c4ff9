package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProtocolShort takes the protocol package through the harness; the rivals
// are left out. No figure is looked at.
func TestProtocolShort(t *testing.T) {
	dir := t.TempDir()
	doc := "<!-- begin protocol -->\n<!-- end protocol -->\n"
	if err := os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp("", "lb") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	if err := run([]string{"protocol", "-short", "-dir", work, "-out", dir}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, sc := range protocolScenarios {
		if !strings.Contains(string(b), "**"+sc.name+"**: ") {
			t.Errorf("RESULTS.md lacks %s", sc.name)
		}
	}
	wellFormed(t, filepath.Join(dir, "protocol.svg"))
}

// TestExchange: the same octets, whether the next envelope waits or not.
func TestExchange(t *testing.T) {
	for _, lmtp := range []bool{true, false} {
		plain, ahead := newExchange(lmtp, 3, 4<<10, false), newExchange(lmtp, 3, 4<<10, true)
		var one, other strings.Builder
		for range 2 {
			for _, s := range plain.steps {
				one.Write(s.send)
			}
		}
		one.Write(plain.steps[0].send)
		other.Write(ahead.prologue.send)
		for range 2 {
			other.Write(ahead.steps[0].send)
		}
		if one.String() != other.String() {
			t.Errorf("lmtp %v: they differ", lmtp)
		}
		replies := 1
		if lmtp {
			replies = 3
		}
		if n := len(plain.steps[1].codes); n != replies {
			t.Errorf("lmtp %v: %d replies to a message for 3", lmtp, n)
		}
	}
}
