package protocol_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

func TestReplyAppendTo(t *testing.T) {
	for _, c := range []struct {
		r    protocol.Reply
		want string
	}{
		{protocol.Reply{}, "250 2.0.0 \r\n"},
		{protocol.Reply{Code: 250, Text: "OK"}, "250 2.0.0 OK\r\n"},
		{protocol.Reply{Code: 250, Enhanced: protocol.Enhanced{2, 1, 5}, Text: "OK"}, "250 2.1.5 OK\r\n"},
		{protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{4, 1, 1}, Text: "class follows the code"}, "550 5.1.1 class follows the code\r\n"},
		{protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 1000, 1}, Text: "x"}, "550 5.7.1 x\r\n"},
		{protocol.Reply{Code: 354, Text: "go on"}, "354 go on\r\n"},
		{protocol.Reply{Code: 421, Text: "x"}, "421 4.3.2 x\r\n"},
		{protocol.Reply{Code: 452, Text: "x"}, "452 4.3.1 x\r\n"},
		{protocol.Reply{Code: 450, Text: "x"}, "450 4.0.0 x\r\n"},
		{protocol.Reply{Code: 503, Text: "x"}, "503 5.5.1 x\r\n"},
		{protocol.Reply{Code: 504, Text: "x"}, "504 5.5.4 x\r\n"},
		{protocol.Reply{Code: 552, Text: "x"}, "552 5.3.4 x\r\n"},
		{protocol.Reply{Code: 553, Text: "x"}, "553 5.1.3 x\r\n"},
		{protocol.Reply{Code: 99, Text: "no code"}, "451 4.3.0 no code\r\n"},
		{protocol.Reply{Code: 600, Text: "no code"}, "451 4.3.0 no code\r\n"},
		{protocol.Reply{Code: 550, Text: "a\r\nb\x00c\td"}, "550-5.7.1 a \r\n550 5.7.1 b c d\r\n"},
		{protocol.Reply{Code: 550, Text: "grün"}, "550 5.7.1 gr??n\r\n"},
	} {
		if got := string(c.r.AppendTo(nil)); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.r, got, c.want)
		}
	}
}

func TestReplyFolds(t *testing.T) {
	words := strings.TrimSpace(strings.Repeat("word ", 300))
	got := string(protocol.Reply{Code: 550, Text: words + "\nend"}.AppendTo(nil))
	var text []string
	lines := strings.SplitAfter(strings.TrimSuffix(got, "\r\n"), "\r\n")
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		rest, ok := strings.CutPrefix(strings.TrimSuffix(l, "\r\n"), "550"+sep+"5.7.1 ")
		if !ok || len(l) > 512 {
			t.Fatalf("line %d of %d octets: %q", i, len(l), l)
		}
		text = append(text, rest)
	}
	if strings.Join(text, "") != words+"end" || len(lines) != 4+1-1 {
		t.Errorf("%d lines: %q", len(lines), text)
	}
}

func TestReplyValues(t *testing.T) {
	r := protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "%s is full\nsorry", "b")
	if got := r.Error(); got != "452-4.2.2 b is full\n452 4.2.2 sorry" {
		t.Errorf("Error() = %q", got)
	}
	if r.OK() || !r.Temporary() || !(protocol.Reply{}).OK() || !(protocol.Reply{Code: 252}).OK() || (protocol.Reply{Code: 550}).Temporary() {
		t.Error("OK or Temporary is wrong")
	}
	var as protocol.Reply
	if err := fmt.Errorf("wrapped: %w", r); !errors.As(err, &as) || as != r {
		t.Errorf("a wrapped reply is %+v", as)
	}
	if s := (protocol.Enhanced{}).String() + (protocol.Enhanced{5, 1, 10}).String(); s != "5.1.10" {
		t.Errorf("Enhanced.String: %q", s)
	}
}

// replyLine is a line of a reply with an enhanced code that fits it.
var replyLine = regexp.MustCompile(`^([2-5])[0-9][0-9][ -](([245])\.[0-9]{1,3}\.[0-9]{1,3} )?[ -~]*$`)

func FuzzReply(f *testing.F) {
	f.Add(550, uint16(5), uint16(1), uint16(1), "No such user\r\nQUIT")
	f.Add(0, uint16(0), uint16(0), uint16(0), strings.Repeat("grün ", 200))
	f.Add(421, uint16(2), uint16(65535), uint16(0), "\n\n")
	f.Fuzz(func(t *testing.T, code int, e0, e1, e2 uint16, text string) {
		r := protocol.Reply{Code: code, Enhanced: protocol.Enhanced{e0, e1, e2}, Text: text}
		wire := string(r.AppendTo(nil))
		body, ok := strings.CutSuffix(wire, "\r\n")
		if !ok {
			t.Fatalf("no end: %q", wire)
		}
		lines := strings.Split(body, "\r\n")
		for i, l := range lines {
			m := replyLine.FindStringSubmatch(l)
			if m == nil || m[2] != "" && m[1] != m[3] || len(l) > 510 || l[:3] != lines[0][:3] || (l[3] == ' ') != (i == len(lines)-1) {
				t.Fatalf("line %d of %q is %q", i, wire, l)
			}
			if m[1] != "3" && m[2] == "" {
				t.Fatalf("no enhanced code in %q", l)
			}
		}
		if ok := lines[0][0] == '2'; ok != r.OK() {
			t.Fatalf("%+v: OK is %v and the reply %q", r, r.OK(), wire)
		}
	})
}
