package protocol

import "testing"

// firstFault is what a Body finds in content that comes in two spans.
func firstFault(content []byte, cut int, b Body) string {
	for _, span := range [][]byte{content[:cut], content[cut:]} {
		b.size += int64(len(span))
		if b.fault.Code == 0 && len(span) > 0 {
			b.check(span)
		}
	}
	return b.fault.Text
}

// slowFault looks at one octet after the other.
func slowFault(content []byte, b Body) string {
	line, cr := 0, false
	for i, c := range content {
		line++
		switch {
		case int64(i) >= b.limit:
			return replyTooMuch.Text
		case line > b.lineMax:
			return replyLongLine.Text
		case b.strict && (c == '\n') != cr:
			return replyBareInData.Text
		}
		if cr = c == '\r'; c == '\n' {
			line = 0
		}
	}
	return ""
}

// TestFirstFault: of several faults the first one counts, however the content is cut;
// with every content of few octets.
func TestFirstFault(t *testing.T) {
	const most = 7
	content := make([]byte, most)
	for _, strict := range []bool{true, false} {
		b := Body{limit: most - 1, lineMax: 3, strict: strict}
		for n := range most + 1 {
			for number := range 1 << (2 * n) { // four values for each octet, the fourth left out
				c, ok := content[:n], true
				for i := range c {
					digit := number >> (2 * i) & 3
					ok = ok && digit < 3
					c[i] = "a\r\n\x00"[digit]
				}
				if !ok {
					continue
				}
				want := slowFault(c, b)
				for cut := range n + 1 {
					if got := firstFault(c, cut, b); got != want {
						t.Fatalf("%q cut at %d, strict %v: %q, want %q", c, cut, strict, got, want)
					}
				}
			}
		}
	}
}
