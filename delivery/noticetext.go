package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lmtpd/lmtpd/delivery/command"
)

// NoticeText is the mail that tells a user something: header fields, an empty line and
// text, in UTF-8, with NoticeValues in braces. It is read-only.
type NoticeText struct {
	fields []noticeField
	body   string
}

// noticeField is a field with its continuation lines.
type noticeField struct{ name, value string }

// maxNoticeText bounds a NoticeText in octets.
const maxNoticeText = 64 << 10

// ParseNoticeText reads a NoticeText. The error says what is wrong, with its line.
func ParseNoticeText(text []byte) (*NoticeText, error) {
	switch {
	case len(text) > maxNoticeText:
		return nil, fmt.Errorf("more than %d octets", maxNoticeText)
	case !utf8.Valid(text) || bytes.Contains(text, []byte{0}):
		return nil, errors.New("not in UTF-8")
	}
	header, body, _ := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n\n")
	n := &NoticeText{body: strings.TrimRight(body, "\n") + "\n"}
	for i, line := range strings.Split(header, "\n") {
		name, value, colon := strings.Cut(line, ":")
		switch {
		case line != "" && (line[0] == ' ' || line[0] == '\t') && len(n.fields) > 0:
			n.fields[len(n.fields)-1].value += "\n" + line
		case !colon || name == "" || !isFieldName(name):
			return nil, fmt.Errorf("line %d is no header field; the text follows after an empty line", i+1)
		default:
			n.fields = append(n.fields, noticeField{name, strings.TrimSpace(value)})
		}
	}
	if !n.has("Subject") {
		return nil, errors.New("there is no header field Subject")
	}
	some := make(map[string]string)
	for _, v := range NoticeValues {
		some[v] = "x"
	}
	if _, err := n.expand(some); err != nil {
		return nil, fmt.Errorf("%w; there are {%s}", err, strings.Join(NoticeValues, "}, {"))
	}
	return n, nil
}

func (n *NoticeText) has(name string) bool {
	for _, f := range n.fields {
		if strings.EqualFold(f.name, name) {
			return true
		}
	}
	return false
}

// expand puts values in.
func (n *NoticeText) expand(values map[string]string) (*NoticeText, error) {
	e := &NoticeText{fields: make([]noticeField, len(n.fields))}
	var err error
	for i, f := range n.fields {
		e.fields[i].name = f.name
		if e.fields[i].value, err = command.ExpandText(f.value, values); err != nil {
			return nil, err
		}
	}
	e.body, err = command.ExpandText(n.body, values)
	return e, err
}

// message is the mail, without what every delivery puts before it. RFC 3834 section 5:
// Auto-Submitted keeps programs from answering it.
func (n *NoticeText) message(w *QuotaWarning, hostname, id string, now time.Time, crlf bool) ([]byte, error) {
	values := w.values()
	e, err := n.expand(values)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	add := func(name, value string) {
		if !n.has(name) {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	add("From", "Mail Delivery System <MAILER-DAEMON@"+hostname+">")
	add("To", "<"+values["address"]+">")
	add("Date", now.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	add("Message-ID", "<"+id+".quota@"+hostname+">")
	for _, f := range e.fields {
		switch {
		case strings.EqualFold(f.name, "Auto-Submitted"):
			continue
		case strings.EqualFold(f.name, "Subject"):
			f.value = mime.QEncoding.Encode("utf-8", f.value) // plain ASCII stays as it is
		}
		fmt.Fprintf(&b, "%s: %s\n", f.name, f.value)
	}
	b.WriteString("Auto-Submitted: auto-generated\n")
	add("MIME-Version", "1.0")
	add("Content-Type", "text/plain; charset=utf-8")
	add("Content-Transfer-Encoding", "8bit")
	b.WriteString("\n")
	b.WriteString(e.body)
	if crlf {
		return []byte(strings.ReplaceAll(b.String(), "\n", "\r\n")), nil
	}
	return []byte(b.String()), nil
}
