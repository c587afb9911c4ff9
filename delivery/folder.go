package delivery

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Folders say which folder of a mailbox a message is filed in. The zero value: INBOX.
type Folders struct {
	// Detail files user+detail in the folder detail.
	Detail bool
	// Separator is what separates the levels of a folder's name, in a detail and in
	// Rules; "" is a dot, as Maildir++ itself has it.
	Separator string
	// Create makes a folder that a detail names and that does not exist; else such
	// mail goes to INBOX.
	Create bool
	// Rules are tried in order before the detail; the first that matches decides. A
	// user whose record says filing=no is left alone by them.
	Rules []FilingRule
}

// FilingRule files a message by one of its header fields, for instance
// {Field: "X-Spam-Flag", Value: "YES", Folder: "Junk", Seen: true, Create: true}.
type FilingRule struct {
	Field  string // name of the field, in any case
	Value  string // what it says, blanks at either end and case aside; with "*" at its end, how that begins
	Folder string // as a person writes it, in UTF-8
	Create bool   // make it where it does not exist; else such mail goes to INBOX
	Seen   bool   // mark the message as seen
}

// Check says what is wrong with a configuration of folders.
func (f *Folders) Check() error {
	if f.Separator != "" && (len(f.Separator) != 1 || f.Separator[0] <= ' ' || f.Separator[0] >= 0x7f || isAlphanumeric(f.Separator[0]) || f.Separator == "&") {
		return fmt.Errorf("separator %q: it is one sign, such as a slash", f.Separator)
	}
	for i, r := range f.Rules {
		switch {
		case r.Field == "" || len(r.Field) > maxFieldName || !isFieldName(r.Field):
			return fmt.Errorf("rule %d: %q is no name of a header field", i+1, r.Field)
		case f.directory(r.Folder) == "" && !strings.EqualFold(r.Folder, "INBOX"):
			return fmt.Errorf("rule %d: %q is no name of a folder", i+1, r.Folder)
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isFieldName(s string) bool {
	for i := range len(s) {
		if !isNameOctet(s[i]) {
			return false
		}
	}
	return true
}

// filing is where one copy goes within its mailbox.
type filing struct {
	folder string // directory of a Maildir++ folder; "" is INBOX
	create bool
	seen   bool
}

// file decides for a recipient.
func (f *Folders) file(r *recipient, h *messageHeader) filing {
	if wantsRules(r.user.Extra) {
		for i := range f.Rules {
			if rule := &f.Rules[i]; h.matches(rule) {
				return filing{f.directory(rule.Folder), rule.Create, rule.Seen}
			}
		}
	}
	if f.Detail {
		return filing{folder: f.directory(r.addr.Detail), create: f.Create}
	}
	return filing{}
}

// wantsRules reads filing=no in a user record.
func wantsRules(extra map[string]string) bool {
	switch strings.ToLower(extra["filing"]) {
	case "no", "n", "off", "0", "false":
		return false
	}
	return true
}

// matches reports whether any field of that name says what the rule wants.
func (h *messageHeader) matches(rule *FilingRule) bool {
	want, prefix := strings.CutSuffix(rule.Value, "*")
	want = strings.TrimSpace(want)
	for _, f := range h.fields {
		if !strings.EqualFold(f.name, rule.Field) {
			continue
		}
		if strings.EqualFold(f.value, want) || prefix && len(f.value) >= len(want) && strings.EqualFold(f.value[:len(want)], want) {
			return true
		}
	}
	return false
}

// directory is the directory of a folder in a Maildir++: a dot before each level, the
// name in modified UTF-7 (RFC 3501 section 5.1.3) as IMAP servers store it. "" is
// INBOX, and what no folder can be called.
func (f *Folders) directory(name string) string {
	sep := f.Separator
	if sep == "" {
		sep = "."
	}
	if strings.EqualFold(name, "INBOX") {
		return ""
	}
	var b strings.Builder
	for level := range strings.SplitSeq(name, sep) {
		// A dot within a level would make two of it. The others mean something in
		// commands of IMAP, or in paths.
		if level == "" || level[0] == '~' || strings.ContainsAny(level, "./%*") || !utf8.ValidString(level) || strings.ContainsFunc(level, unicode.IsControl) {
			return ""
		}
		b.WriteByte('.')
		b.WriteString(modifiedUTF7(level))
	}
	if b.Len() > maxComponent {
		return ""
	}
	return b.String()
}

var utf7Encoding = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// modifiedUTF7: RFC 3501 section 5.1.3.
func modifiedUTF7(s string) string {
	var b strings.Builder
	var run []uint16
	flush := func() {
		if len(run) == 0 {
			return
		}
		var octets []byte
		for _, u := range run {
			octets = binary.BigEndian.AppendUint16(octets, u)
		}
		b.WriteByte('&')
		b.WriteString(utf7Encoding.EncodeToString(octets))
		b.WriteByte('-')
		run = run[:0]
	}
	for _, c := range s {
		if c < ' ' || c > '~' {
			run = utf16.AppendRune(run, c)
			continue
		}
		flush()
		b.WriteRune(c)
		if c == '&' {
			b.WriteByte('-')
		}
	}
	flush()
	return b.String()
}
