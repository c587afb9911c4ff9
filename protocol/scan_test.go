package protocol

import (
	"bytes"
	"testing"
)

// reference is what the scanner must do, without its concern for pieces: the content
// up to CR LF . CR LF, the dot behind every other CR LF taken off.
func reference(data []byte) (content []byte, used int, done bool) {
	whole := append([]byte("\r\n"), data...)
	end := bytes.Index(whole, []byte("\r\n.\r\n"))
	if done = end >= 0; done {
		whole, used = whole[:end+2], end+3
	}
	return bytes.ReplaceAll(whole, []byte("\r\n."), []byte("\r\n"))[2:], used, done
}

// scanPieces feeds the scanner as Body does: what it leaves over comes before the
// next piece. Each octet of cuts is the length of a piece; the rest is the last one.
func scanPieces(t testing.TB, data, cuts []byte) (content []byte, used int, done bool) {
	var sc scanner
	var pending []byte
	for {
		span, n, end := sc.next(pending)
		if n > len(pending) || len(span) > n {
			t.Fatalf("%d octets of %d used, span of %d", n, len(pending), len(span))
		}
		content = append(content, span...)
		used += n
		pending = pending[n:]
		switch {
		case end:
			return content, used, true
		case n > 0:
			continue
		case len(pending) > 2:
			t.Fatalf("%q held back", pending)
		case len(data) == 0:
			return content, used, false
		}
		piece := len(data)
		if len(cuts) > 0 {
			piece, cuts = min(int(cuts[0])+1, len(data)), cuts[1:]
		}
		pending = append(bytes.Clone(pending), data[:piece]...)
		data = data[piece:]
	}
}

func checkScan(t testing.TB, data, cuts []byte) {
	t.Helper()
	got, used, done := scanPieces(t, data, cuts)
	want, wantUsed, wantDone := reference(data)
	if done != wantDone || done && used != wantUsed {
		t.Fatalf("%q: end found %v at %d, want %v at %d", data, done, used, wantDone, wantUsed)
	}
	// Without the end, up to two octets that may belong to it are held back.
	if done && !bytes.Equal(got, want) || !bytes.HasPrefix(want, got) || len(want)-len(got) > 2 {
		t.Fatalf("%q: got content %q, want %q", data, got, want)
	}
}

// TestScannerEveryString tries every string of up to seven of the octets that
// matter, in every way of cutting it in two and octet by octet.
func TestScannerEveryString(t *testing.T) {
	const alphabet = "\r\n.x"
	single := make([]byte, 16)
	var try func(prefix []byte)
	try = func(prefix []byte) {
		for cut := range max(1, len(prefix)) {
			checkScan(t, prefix, []byte{byte(cut)})
		}
		checkScan(t, prefix, single)
		if len(prefix) < 7 {
			for i := range len(alphabet) {
				try(append(bytes.Clone(prefix), alphabet[i]))
			}
		}
	}
	try(nil)
}

func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		"x\r\n.\r\n", ".\r\n", "x\r\r\n.\r\n", "\n.\r\n.\r\n", "x\r\n.\n\r\n.\r\nNOOP\r\n", "..x\r\n...\r\n.\r\r\n.\r\n",
	} {
		f.Add([]byte(s), []byte{0, 1, 2})
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte) { checkScan(t, data, cuts) })
}
