package protocol

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// TestReplyFoldsCharacters: a line without blanks is cut between two characters; one of
// octets that are no characters is cut anyhow.
func TestReplyFoldsCharacters(t *testing.T) {
	for _, unit := range []string{"x", "ü", "€", "\U0001f600", "x€"} {
		text := strings.Repeat(unit, 1500/len(unit))
		out := Reply{Code: 250, Text: text}.appendTo(nil, true, true)
		var got strings.Builder
		for line := range strings.SplitSeq(strings.TrimSuffix(string(out), "\r\n"), "\r\n") {
			if len(line) > maxReplyLine-2 || len(line) < maxReplyLine-2-utf8.UTFMax && !strings.HasPrefix(line, "250 ") || !utf8.ValidString(line) {
				t.Errorf("%q: line of %d octets: %q", unit, len(line), line)
			}
			got.WriteString(line[len("250 2.0.0 "):])
		}
		if got.String() != text {
			t.Errorf("%q: %q", unit, got.String())
		}
	}
	if out := (Reply{Code: 250, Text: strings.Repeat("\x80", 600)}).appendTo(nil, false, true); strings.Count(string(out), "?") != 600 {
		t.Errorf("got %q", out)
	}
}
