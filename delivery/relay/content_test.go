package relay

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"
)

// slowContent is what content makes of a message, done on the whole of it.
func slowContent(message string) string {
	m := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(message, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	if m != "" && !strings.HasSuffix(m, "\r\n") {
		m += "\r\n"
	}
	if strings.HasPrefix(m, ".") {
		m = "." + m
	}
	return strings.ReplaceAll(m, "\r\n.", "\r\n..")
}

func FuzzContent(f *testing.F) {
	for _, m := range []string{
		"", "A: b", "A: b\r\n", ".", "..\n.", "\n.\n", "\r.\r", "a\r\r\n.\n", "a\n.\r\nb", "a\r\n.\r\r.\n\r", "\r", "\n\r",
	} {
		f.Add(m, 1)
		f.Add(m, 2)
		f.Add(m, 100)
	}
	f.Fuzz(func(t *testing.T, message string, piece int) {
		if piece < 1 {
			return
		}
		var out bytes.Buffer
		w := bufio.NewWriterSize(&out, 16)
		c := &content{dst: w}
		for rest := []byte(message); len(rest) > 0; {
			n := min(piece, len(rest))
			if got, err := c.Write(rest[:n]); got != n || err != nil {
				t.Fatal(got, err)
			}
			rest = rest[n:]
		}
		c.end()
		w.Flush()
		got := out.String()
		if got != slowContent(message) {
			t.Errorf("%q in pieces of %d: %q, want %q", message, piece, got, slowContent(message))
		}
		if strings.Contains("\r\n"+got, "\r\n.\r\n") {
			t.Errorf("%q: the end is within %q", message, got)
		}
	})
}

// Whatever a server says, a reply is a code and printable text, or an error.
func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"250 ok\r\n", "250-2.0.0 a\r\n250 2.0.0 b\r\n", "250\r\n", "250-x\r\n251 y\r\n", "550 5.1.1\r\n", "", "2", "250 \xff\x00\x1b\n", "999 x\r\n", "250x\r\n", "550 5.99999.1 x\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			far.Write(data)
			far.Close()
		}()
		defer near.Close()
		l := &link{}
		l.use(near)
		for range 100 {
			r, err := l.reply()
			if err != nil {
				if !l.dead {
					t.Error("alive after", err)
				}
				return
			}
			if r.Code < 200 || r.Code > 599 || len(r.Text) > maxText+maxLine || strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f || c == 0xfffd }) {
				t.Errorf("%+v", r)
			}
		}
	})
}
