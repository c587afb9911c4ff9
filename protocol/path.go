package protocol

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// Path is a reverse-path or forward-path (RFC 5321 section 4.1.2), decoded.
// The zero Path is the null reverse-path "<>".
type Path struct {
	// Local is the local part without quotes and backslashes, case kept.
	Local string
	// Domain is the domain or the address literal with its brackets, case kept;
	// "" where the client gave none ("<postmaster>").
	Domain string
	// Raw is what stood between the angle brackets, a source route removed.
	Raw string
}

// IsNull reports whether this is the null reverse-path.
func (p Path) IsNull() bool { return p.Raw == "" }

// String gives the mailbox with its local part quoted where it must be, without
// angle brackets; "" for the null reverse-path.
func (p Path) String() string {
	local := p.Local
	if !isDotString(local) && p.Raw != "" {
		local = quoteLocal(local)
	}
	if p.Domain == "" {
		return local
	}
	return local + "@" + p.Domain
}

// maxPath counts the angle brackets (RFC 5321 section 4.5.3.1.3).
const maxPath = 256

// The ways in which a path can be wrong.
var (
	errPathSyntax  = errors.New("malformed address")
	errPathTooLong = errors.New("address too long")
	errPathUTF8    = errors.New("non-ASCII address without SMTPUTF8")
	errPathNotUTF8 = errors.New("address is not UTF-8")
)

// ParsePath parses a mailbox without its angle brackets: a local part, quoted or
// not, with or without a domain; a source route before it is dropped (RFC 5321
// section 4.1.1.3) and comments at either end are passed over. It is lenient
// where real senders are sloppy (dots anywhere in the local part, underscores in
// a domain) and strict about what could change the meaning: control characters,
// unbalanced quotes, a second "@". Octets outside ASCII are only allowed with
// utf8, and must then be valid UTF-8.
func ParsePath(s string, utf8OK bool) (Path, error) {
	if len(s)+2 > maxPath {
		return Path{}, errPathTooLong
	}
	if !isASCII(s) {
		if !utf8OK {
			return Path{}, errPathUTF8
		}
		if !utf8.ValidString(s) {
			return Path{}, errPathNotUTF8
		}
	}
	s = dropSourceRoute(s)
	s = trimComments(s)
	p := Path{Raw: s}
	var rest string
	if strings.HasPrefix(s, `"`) {
		local, n, ok := unquote(s)
		if !ok {
			return Path{}, errPathSyntax
		}
		p.Local, rest = local, s[n:]
	} else {
		n := 0
		for n < len(s) && (isAtext(s[n]) || s[n] == '.') {
			n++
		}
		p.Local, rest = s[:n], s[n:]
	}
	if p.Local == "" {
		return Path{}, errPathSyntax
	}
	if rest == "" {
		return p, nil
	}
	if rest[0] != '@' || !validDomain(rest[1:]) {
		return Path{}, errPathSyntax
	}
	p.Domain = rest[1:]
	return p, nil
}

// cutPath takes the path off the front of a MAIL or RCPT argument and gives what
// stands between the angle brackets and the parameters behind them. The brackets
// may be missing, as old clients do; a ">" within quotes does not end the path.
func cutPath(s string) (inner, params string, ok bool) {
	if !strings.HasPrefix(s, "<") {
		inner, params, _ = strings.Cut(s, " ")
		return inner, params, inner != "" && !strings.ContainsAny(inner, "<>")
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			rest := s[i+1:]
			if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
				return "", "", false
			}
			return s[1:i], rest, true
		}
	}
	return "", "", false
}

func dropSourceRoute(s string) string {
	if !strings.HasPrefix(s, "@") {
		return s
	}
	i := strings.IndexByte(s, ':')
	if i < 0 {
		return s
	}
	for _, d := range strings.Split(s[:i], ",") {
		if len(d) < 2 || d[0] != '@' || !validDomain(d[1:]) {
			return s
		}
	}
	return s[i+1:]
}

// trimComments takes one comment off each end, as RFC 5322 addresses have them.
func trimComments(s string) string {
	if strings.HasPrefix(s, "(") {
		if i := strings.IndexByte(s, ')'); i > 0 {
			s = strings.TrimLeft(s[i+1:], " \t")
		}
	}
	if strings.HasSuffix(s, ")") {
		if i := strings.LastIndexByte(s, '('); i > 0 && !strings.HasPrefix(s, `"`) {
			s = strings.TrimRight(s[:i], " \t")
		}
	}
	return s
}

// unquote decodes the quoted string at the front of s and says how long it was.
func unquote(s string) (local string, n int, ok bool) {
	escaped := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return "", 0, false
		case c == '\\':
			escaped = true
			i++
			if i == len(s) || s[i] < ' ' || s[i] == 0x7f {
				return "", 0, false
			}
		case c == '"':
			local = s[1:i]
			if escaped {
				local = dropBackslashes(local)
			}
			return local, i + 1, true
		}
	}
	return "", 0, false
}

func dropBackslashes(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func quoteLocal(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String()
}

// isDotString reports whether s may stand unquoted as a local part (RFC 5321
// section 4.1.2, Dot-string), here with the stray dots that real addresses have.
func isDotString(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isAtext(s[i]) && s[i] != '.' {
			return false
		}
	}
	return s != ""
}

func isAtext(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80:
		return true
	}
	return c != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func validDomain(s string) bool {
	if s == "" {
		return false
	}
	if s[0] == '[' {
		if len(s) < 3 || s[len(s)-1] != ']' {
			return false
		}
		for i := 1; i < len(s)-1; i++ {
			// RFC 5321 allows quotes and angle brackets too, which no address has, and
			// which others would take for the end of something.
			if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`[]\"<>`, c) >= 0 {
				return false
			}
		}
		return true
	}
	if s[0] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c >= 0x80, c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
