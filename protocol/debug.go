package protocol

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// Debug prints each complete message to w, in the frame that the debugging servers of
// Python's smtpd and aiosmtpd have: a rule, the parameters of MAIL and RCPT if there
// were any and a blank line, the header, an X-Peer line before the blank line that
// ends it, the body, another rule. Lines end with LF; octets that are no UTF-8 are
// replaced. What the sender wrote reaches w, control characters included.
//
// Messages do not mix, whatever the number of sessions. An error of w refuses the
// message for now.
func Debug(w io.Writer) Handler { return &debugHandler{w: w} }

type debugHandler struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (d *debugHandler) Deliver(_ context.Context, tx *Transaction, body *Body) error {
	var content bytes.Buffer
	if _, err := body.WriteTo(&content); err != nil {
		return err
	}
	page := debugPage(tx, content.Bytes())
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.w.Write(page)
	return err
}

func debugPage(tx *Transaction, content []byte) []byte {
	var page bytes.Buffer
	page.WriteString("---------- MESSAGE FOLLOWS ----------\n")
	mail := strings.Fields(strings.ToUpper(tx.RawParams))
	var rcpt []string
	for i := range tx.Rcpts {
		rcpt = append(rcpt, strings.Fields(strings.ToUpper(tx.Rcpts[i].RawParams))...)
	}
	if len(mail) > 0 {
		fmt.Fprintf(&page, "mail options: %s\n", pythonList(mail))
	}
	if len(rcpt) > 0 {
		fmt.Fprintf(&page, "rcpt options: %s\n", pythonList(rcpt))
	}
	if len(mail)+len(rcpt) > 0 {
		page.WriteByte('\n')
	}
	header := true
	for len(content) > 0 {
		var line []byte
		line, content = cutLine(content)
		if header && len(line) == 0 {
			fmt.Fprintf(&page, "X-Peer: %s\n", tx.Session.ClientAddr())
			header = false
		}
		writeUTF8(&page, line)
		page.WriteByte('\n')
	}
	page.WriteString("------------ END MESSAGE ------------\n")
	return page.Bytes()
}

// cutLine takes a line off the front of b; it ends with CR LF, LF or CR.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexAny(b, "\r\n")
	switch {
	case i < 0:
		return b, nil
	case b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n':
		return b[:i], b[i+2:]
	}
	return b[:i], b[i+1:]
}

// pythonList writes words as Python shows a list of them.
func pythonList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quote := "'"
		if strings.Contains(w, "'") && !strings.Contains(w, `"`) {
			quote = `"`
		}
		w = strings.ReplaceAll(w, `\`, `\\`)
		if quote == "'" {
			w = strings.ReplaceAll(w, "'", `\'`)
		}
		quoted[i] = quote + w + quote
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// writeUTF8 writes line with U+FFFD in place of what is no UTF-8: one for as many
// octets as begin a character that does not go on (Unicode 15, section 3.9, table
// 3-8), which is what readers of the reference's output see.
func writeUTF8(page *bytes.Buffer, line []byte) {
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		if r == utf8.RuneError && n == 1 {
			n = truncated(line)
		}
		page.WriteRune(r)
		line = line[n:]
	}
}

// truncated is the length of the longest beginning of line that a character could
// begin with too; at least 1.
func truncated(line []byte) int {
	n := 1
	for n < len(line) && !utf8.FullRune(line[:n+1]) {
		n++
	}
	return n
}
