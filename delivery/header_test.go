package delivery

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// scanWhole feeds a message in the given pieces and returns what stayed of it.
func scanPieces(t testing.TB, pieces ...[]byte) (messageHeader, []byte) {
	t.Helper()
	var h headerScan
	var kept []byte
	keep := func(p []byte) error { kept = append(kept, p...); return nil }
	for _, p := range pieces {
		p = bytes.Clone(p)
		if err := h.feed(p, keep); err != nil {
			t.Fatal(err)
		}
		for i := range p {
			p[i] = '!' // the scan must not hold on to what it was given
		}
	}
	if err := h.finish(keep); err != nil {
		t.Fatal(err)
	}
	return h.header, kept
}

// cut cuts p at random, empty pieces included.
func cut(p []byte, seed uint64) (pieces [][]byte) {
	r := rand.New(rand.NewPCG(seed, 1))
	for len(p) > 0 {
		n := min(r.IntN(1+r.IntN(40)), len(p))
		pieces = append(pieces, p[:n])
		p = p[n:]
	}
	return pieces
}

func TestHeaderScan(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, test := range []struct {
		name, in, out string // out "=": as it came
		want          messageHeader
	}{
		{"empty", "", "=", messageHeader{}},
		{"empty line", "\n", "=", messageHeader{}},
		{"body only", "\nReturn-Path: <x>\n", "=", messageHeader{}},
		{"body only, CR LF", "\r\nReturn-Path: <x>\r\n", "=", messageHeader{}},
		{"no header", "hello\n", "=", messageHeader{bare: true}},
		{"no header, no newline", "hello", "=", messageHeader{bare: true}},
		{"no header, one octet", "h", "=", messageHeader{bare: true}},
		{"no header, blank first", " Return-Path: x\n", "=", messageHeader{bare: true}},
		{"no header, colon first", ": x\nReturn-Path: y\n", "=", messageHeader{bare: true}},
		{"no header, words", "see this: nothing\n", "=", messageHeader{bare: true}},
		{"no header, long line", long + "\nReturn-Path: y\n", "=", messageHeader{bare: true}},
		{"no header, long word", long, "=", messageHeader{bare: true}},
		{"NUL", "\x00\n", "=", messageHeader{bare: true}},
		{"8-bit", "S\xfcbject: x\n", "=", messageHeader{bare: true}},
		{"mbox line", "From bob Thu Jan  1 00:00:00 1970\nReturn-Path: <x>\n\n", "=", messageHeader{bare: true}},
		{"field only, no newline", "Subject: x", "=", messageHeader{}},
		{"name only", "Subject", "=", messageHeader{bare: true}},
		{"header ends with text", "Subject: x\nhello\nReturn-Path: <x>\n", "=", messageHeader{}},
		{"Return-Path", "Return-Path: <a@b>\nSubject: x\n\nbody\n", "Subject: x\n\nbody\n", messageHeader{}},
		{"Return-Path only", "Return-Path: <a@b>", "", messageHeader{}},
		{"Return-Path, cut off", "Return-Pat", "=", messageHeader{bare: true}},
		{"Return-Path then text", "Return-Path: <a@b>\nhello\n", "hello\n", messageHeader{bare: true}},
		{"Return-Path then empty line", "Return-Path: <a@b>\n\nhello\n", "\nhello\n", messageHeader{}},
		{"Return-Path then long field", "Return-Path: <a@b>\n" + long + ": x\n\n", long + ": x\n\n", messageHeader{}},
		{"Return-Path folded", "Return-Path:\n <a@b>\n\t(comment)\nSubject: x\n folded\n\n", "Subject: x\n folded\n\n", messageHeader{}},
		{"Return-Path twice, any case", "RETURN-path \t: <a>\r\nX: y\r\nreturn-path:\r\n <b>\r\n\r\nReturn-Path: c\r\n", "X: y\r\n\r\nReturn-Path: c\r\n", messageHeader{}},
		{"Return-Path alike", "Return-Path-X: a\nXReturn-Path: b\nReturn -Path: c\n\n", "=", messageHeader{}},
		{"blanks and no colon", "Subject  x: y\nReturn-Path: <a>\n", "=", messageHeader{bare: true}},
		{"fields of interest", "Received: from a by b id ONE; x\nRECEIVED: by c id TWO; y\nDelivered-To: <a@b>\nDelivered-To:\n c@d\nMessage-ID: <1@x>\nMessage-Id: <2@x>\n\n", "=",
			messageHeader{received: 2, queueID: "ONE", deliveredTo: []string{"a@b", "c@d"}, messageID: "1@x"}},
		{"last field without newline", "Delivered-To: a@b", "=", messageHeader{deliveredTo: []string{"a@b"}}},
		{"long values", "Message-ID: <" + strings.Repeat("m", maxMessageID) + ">\nDelivered-To: " + strings.Repeat("d", maxDeliveredTo) + "\nReceived: " + strings.Repeat("r", maxReceivedField) + " id X\n\n", "=", messageHeader{received: 1}},
		{"long name", long + ": x\nReceived: y\n\n", "=", messageHeader{received: 1}},
		{"long name and blanks", long + " \t : x\nReceived: y\n\n", "=", messageHeader{received: 1}},
		{"long name, then text", "A: b\n" + long + " x: y\nReceived: y\n\n", "=", messageHeader{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.out == "=" {
				test.out = test.in
			}
			in := []byte(test.in)
			whole, kept := scanPieces(t, in)
			if !reflect.DeepEqual(whole, test.want) {
				t.Errorf("got %+v, want %+v", whole, test.want)
			}
			if string(kept) != test.out {
				t.Errorf("kept %q, want %q", kept, test.out)
			}
			for seed := range uint64(20) {
				if h, k := scanPieces(t, cut(in, seed)...); !reflect.DeepEqual(h, whole) || !bytes.Equal(k, kept) {
					t.Fatalf("in pieces (seed %d): %+v, %q", seed, h, k)
				}
			}
		})
	}
}

// However large a header is, little of it is held.
func TestHeaderScanIsBounded(t *testing.T) {
	var h headerScan
	n := 0
	keep := func(p []byte) error { n += len(p); return nil }
	piece := []byte("Delivered-To: " + strings.Repeat("a", 100) + "\nX: " + strings.Repeat("x", 10_000) + "\n")
	fed := 0
	for fed < 8<<20 {
		if err := h.feed(piece, keep); err != nil {
			t.Fatal(err)
		}
		fed += len(piece)
	}
	if n != fed || h.done {
		t.Errorf("kept %d octets of %d, done %v", n, fed, h.done)
	}
	if len(h.header.deliveredTo) != loopFields || cap(h.held) > 1<<10 || cap(h.value) > 64<<10 {
		t.Errorf("%d Delivered-To fields, %d and %d octets held", len(h.header.deliveredTo), cap(h.held), cap(h.value))
	}
	// A line without end is passed on while it arrives.
	n = 0
	for range 100 {
		if err := h.feed(bytes.Repeat([]byte("y"), 1000), keep); err != nil {
			t.Fatal(err)
		}
	}
	if n != 100_000 {
		t.Errorf("%d octets of an endless line were passed on", n)
	}
}

// An error of whoever keeps the octets ends the scan wherever it happens.
func TestHeaderScanError(t *testing.T) {
	boom := fmt.Errorf("boom")
	message := []byte("A: b\n c\n" + strings.Repeat("n", 200) + ": x\n\nbody")
	for fail := 0; ; fail++ {
		var h headerScan
		calls := 0
		keep := func([]byte) error {
			if calls++; calls > fail {
				return boom
			}
			return nil
		}
		err := h.feed(message, keep)
		if err == nil {
			err = h.finish(keep)
		}
		if err == nil {
			break
		}
		if err != boom || fail > 100 {
			t.Fatalf("call %d: %v", fail, err)
		}
	}
}

// slowHeader is what the scan has to find, written for clarity: line by line, with
// the whole message at hand.
func slowHeader(message []byte) (kept []byte, received int, bare bool) {
	lines := bytes.SplitAfter(message, []byte("\n"))
	open, drop, some := false, false, false
	for i, line := range lines {
		isName := func(b []byte) bool {
			b = bytes.TrimRight(b, " \t")
			return len(b) > 0 && bytes.IndexFunc(b, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
		}
		name, _, colon := bytes.Cut(line, []byte(":"))
		switch {
		case len(line) == 0:
			continue
		case open && (line[0] == ' ' || line[0] == '\t'):
		case colon && isName(name):
			open = true
			n := strings.ToLower(string(bytes.TrimRight(name, " \t")))
			drop = n == "return-path"
			if !drop {
				some = true
			}
			if n == "received" {
				received++
			}
		default:
			bare = !some && line[0] != '\n' && line[0] != '\r'
			return append(kept, bytes.Join(lines[i:], nil)...), received, bare
		}
		if !drop {
			kept = append(kept, line...)
		}
	}
	return kept, received, false
}

func FuzzHeaderScan(f *testing.F) {
	f.Add([]byte("Return-Path: <a>\r\n b\r\nReceived: x\r\n\r\nbody"), uint64(1))
	f.Add([]byte("Return-Path : <a>\n\tb\nDelivered-To: c\nhello\n"), uint64(2))
	f.Add([]byte(strings.Repeat("n", 90)+" : x\nReturn-Path"), uint64(3))
	f.Fuzz(func(t *testing.T, message []byte, seed uint64) {
		whole, kept := scanPieces(t, message)
		pieces, keptPieces := scanPieces(t, cut(message, seed)...)
		if !reflect.DeepEqual(whole, pieces) || !bytes.Equal(kept, keptPieces) {
			t.Errorf("whole %+v %q, in pieces %+v %q", whole, kept, pieces, keptPieces)
		}
		slow, received, bare := slowHeader(message)
		if !bytes.Equal(kept, slow) || whole.received != received || whole.bare != bare {
			t.Errorf("got %q, %d, %v; want %q, %d, %v", kept, whole.received, whole.bare, slow, received, bare)
		}
	})
}
