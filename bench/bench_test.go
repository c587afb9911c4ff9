package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestShort takes a few messages of each scenario through the harness: every
// delivery must be found again, and the report must come out. No figure is
// looked at.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	doc := "what people wrote\n<!-- begin delivery -->\nformer figures\n<!-- end delivery -->\nand more\n"
	if err := os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	// The mail user has to get to it, and a socket's path is short.
	work, err := os.MkdirTemp("", "lb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	if err := os.Chmod(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"delivery", "-short", "-dir", work, "-out", dir}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "RESULTS.md"))
	if err != nil {
		t.Fatal(err)
	}
	got := string(b)
	for _, want := range []string{"what people wrote\n", "and more\n", "**a**: ", "**e**: ", "| " + nameLMTPD + " | ", "| " + phases.name + " | "} {
		if !strings.Contains(got, want) {
			t.Errorf("RESULTS.md lacks %q", want)
		}
	}
	if strings.Contains(got, "former figures") {
		t.Error("RESULTS.md still has what it had before")
	}
	wellFormed(t, filepath.Join(dir, "delivery.svg"))
}

func wellFormed(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for d := xml.NewDecoder(f); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// TestVerify: the load generator would notice a server that lies.
func TestVerify(t *testing.T) {
	s, err := newSite(t.TempDir(), false, false)
	if err != nil {
		t.Fatal(err)
	}
	m := newMessage(4 << 10).file()
	put := func(user int, id uint64, name string, cut int) {
		t.Helper()
		var buf []byte
		content := m.pieces(id, &buf)[0]
		if err := os.WriteFile(filepath.Join(s.maildir(user), "new", name), content[:len(content)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	due := func(user int, id uint64) ack { return ack{user: user, id: id, size: m.stored()} }
	put(1, 7, "one", 0)
	put(2, 7, "one", 0)
	if err := s.verify([]ack{due(1, 7), due(2, 7)}); err != nil {
		t.Errorf("all there: %v", err)
	}
	if err := s.verify([]ack{due(1, 7), due(1, 7), due(2, 7)}); err == nil {
		t.Error("acknowledged twice: no error")
	}
	if err := s.verify([]ack{due(1, 7), due(2, 7), due(3, 7)}); err == nil {
		t.Error("a lost message: no error")
	}
	if err := s.verify([]ack{due(1, 7)}); err == nil {
		t.Error("a message that was never acknowledged: no error")
	}
	put(2, 7, "two", 0)
	if err := s.verify([]ack{due(1, 7), due(2, 7)}); err == nil {
		t.Error("a message twice: no error")
	}
	put(3, 7, "one", 1)
	if err := s.verify([]ack{due(1, 7), due(2, 7), due(3, 7)}); err == nil {
		t.Error("a message cut short: no error")
	}
}

func TestMessage(t *testing.T) {
	for _, size := range []int{0, 4 << 10, 10 << 20} {
		m := newMessage(size)
		var buf []byte
		var wire []byte
		for _, p := range m.pieces(0x1234, &buf) {
			wire = append(wire, p...)
		}
		if n := int64(len(wire)) - 3; n != m.size() || size > 0 && (n > int64(size) || n < int64(size)-100) {
			t.Errorf("message of %d octets has %d, and says %d", size, n, m.size())
		}
		if !strings.HasSuffix(string(wire), "\r\n.\r\n") || strings.Contains(string(wire[:len(wire)-3]), "\r\n.") {
			t.Errorf("message of %d octets ends early or not at all", size)
		}
		if id, err := findID(wire[:min(len(wire), 1000)]); id != 0x1234 || err != nil {
			t.Errorf("its number is %x, %v", id, err)
		}
	}
}

func TestMedian(t *testing.T) {
	k := key{"b", nameLMTPD}
	r := results{k: {{rate: 5}, {rate: 100}, {rate: 7}}}
	if got, ok := r.median("b", nameLMTPD, rate); got != 7 || !ok {
		t.Errorf("median %v, %v", got, ok)
	}
	r[k] = append(r[k], sample{rate: 9})
	if got, _ := r.median("b", nameLMTPD, rate); got != 8 {
		t.Errorf("median of four %v", got)
	}
	if _, ok := r.median("b", nameDovecot, rate); ok {
		t.Error("a median of nothing")
	}
}

func TestTargets(t *testing.T) {
	for _, c := range []struct {
		t     target
		met   bool
		reach float64
	}{
		{target{want: 3, got: 6}, true, 2},
		{target{want: 3, got: 1.5}, false, 0.5},
		{target{want: 3, got: 3}, true, 1},
		{target{want: 10, got: 5, atMost: true}, true, 2},
		{target{want: 10, got: 20, atMost: true}, false, 0.5},
		{target{want: 0, got: 0, atMost: true}, true, math.Inf(1)},
		{target{want: 0, got: 1, atMost: true}, false, 0},
	} {
		if c.t.met() != c.met || c.t.reach() != c.reach {
			t.Errorf("%+v: %v, %v", c.t, c.t.met(), c.t.reach())
		}
	}
	r := results{
		key{"b", nameLMTPD}:   {{rate: 800}},
		key{"b", nameDovecot}: {{rate: 100}},
	}
	found := false
	for _, x := range deliveryTargets(r) {
		if x.what == "b: rate against Dovecot" {
			found = x.known && x.got == 8
		} else if x.known && strings.Contains(x.what, "against") {
			t.Errorf("%s is known, with %v", x.what, x.got)
		}
	}
	if !found {
		t.Error("b against Dovecot is not 8")
	}
}

func TestReplacePart(t *testing.T) {
	if _, err := replacePart("nothing marked", "x", "new"); err == nil {
		t.Error("no error")
	}
}

func TestWithin(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	window := [2]time.Time{at(10), at(20)}
	for _, c := range []struct {
		begin, end int
		want       float64
	}{{11, 13, 1}, {8, 12, 0.5}, {15, 25, 0.5}, {5, 45, 0.25}, {1, 9, 0}, {21, 22, 0}, {10, 20, 1}} {
		tr := transaction{end: at(c.end), took: time.Duration(c.end-c.begin) * time.Second}
		if got := tr.within(window); got != c.want {
			t.Errorf("from %d to %d: %v, want %v", c.begin, c.end, got, c.want)
		}
	}
}
