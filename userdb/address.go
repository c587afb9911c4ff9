package userdb

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPart bounds local part and domain in octets. RFC 5321 section 4.5.3.1 has 64 and 255; local parts that are longer
// than 64 are in use (VERP, SRS), and 255 is what a file name can hold.
const maxPart = 255

// ErrBadAddress is what every refusal of an address is, by errors.Is. Permanent.
var ErrBadAddress = errors.New("bad address")

// BadAddressError says which address was refused and why. The text holds the address quoted, so it is safe in a log.
type BadAddressError struct {
	Address string // as it was given
	Reason  string
}

func (e *BadAddressError) Error() string {
	return fmt.Sprintf("bad address %+q: %s", clip(e.Address), e.Reason)
}

// Is makes errors.Is(e, ErrBadAddress) true.
func (e *BadAddressError) Is(target error) bool { return target == ErrBadAddress }

// Rules say how a site reads addresses. The zero value splits nothing and keeps case.
type Rules struct {
	Delimiter string // any one of these octets separates user and detail; "": addresses have no detail
	FoldCase  bool   // Bob and bob are the same user
}

// DelimiterError names the sign that cannot separate user and detail.
type DelimiterError struct{ Sign string }

func (e *DelimiterError) Error() string {
	return fmt.Sprintf("delimiter %+q cannot separate user and detail; use a sign such as + or -", e.Sign)
}

// Check says whether Delimiter can work: printable ASCII other than letters, digits and what addresses and paths are made
// of. Errors are *DelimiterError.
func (r Rules) Check() error {
	for i, sign := range r.Delimiter {
		if sign <= ' ' || sign >= 0x7f || isAlnum(byte(sign)) || strings.ContainsRune(`@"\/:()<>[]`, sign) {
			_, size := utf8.DecodeRuneInString(r.Delimiter[i:])
			return &DelimiterError{r.Delimiter[i : i+size]}
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// Address is a recipient as databases see it. All values are decoded: no quotes, no backslashes. Databases need only
// Local and Domain, so an Address may also be written as a literal.
type Address struct {
	Local  string // local part without detail, folded if the rules say so
	Detail string // what follows the first delimiter, case kept; "" if there is none
	Domain string // lower case, without trailing dot; "" if the address had none
	Full   string // whole local part as it came, detail and case included; "" stands for Local
}

// Parse reads an address whose local part has been unquoted already. An empty domain is an address without domain.
// Errors are *BadAddressError.
//
// Domains are compared as octets: xn-- and UTF-8 forms of one domain are two domains. A local part that begins with a
// delimiter has no detail, so that "+x" is not the empty user.
func (r Rules) Parse(local, domain string) (Address, error) {
	if reason := badLocal(local); reason != "" {
		return Address{}, &BadAddressError{join(local, domain), reason}
	}
	d, reason := cleanDomain(domain)
	if reason != "" {
		return Address{}, &BadAddressError{join(local, domain), reason}
	}
	a := Address{Local: local, Domain: d, Full: local}
	if r.Delimiter != "" {
		if strings.Trim(local, r.Delimiter) == "" {
			return Address{}, &BadAddressError{join(local, domain), "local part is only a delimiter"}
		}
		if i := strings.IndexAny(local, r.Delimiter); i > 0 {
			a.Local, a.Detail = local[:i], local[i+1:]
		}
	}
	a.Local = r.fold(a.Local)
	return a, nil
}

// fold gives a name the case that databases look it up with.
func (r Rules) fold(name string) string {
	// RFC 5321 section 4.5.1: postmaster is the same in any case, always.
	if r.FoldCase || len(name) == len("postmaster") && strings.EqualFold(name, "postmaster") {
		return strings.ToLower(name)
	}
	return name
}

// ParseString reads "user+x@dom", `"quo ted"@dom` and "user", as they stand on command lines and in files. Angle brackets
// and source routes are not read. Errors are *BadAddressError.
func (r Rules) ParseString(addr string) (Address, error) {
	local, domain := addr, ""
	if strings.HasPrefix(addr, `"`) {
		var rest string
		var ok bool
		if local, rest, ok = unquote(addr); !ok {
			return Address{}, &BadAddressError{addr, "quoted local part has no end"}
		}
		switch {
		case rest == "":
		case rest == "@":
			return Address{}, &BadAddressError{addr, "domain is empty"}
		case rest[0] == '@':
			domain = rest[1:]
		default:
			return Address{}, &BadAddressError{addr, "quoted local part is not followed by @"}
		}
	} else if i := strings.LastIndexByte(addr, '@'); i >= 0 {
		local, domain = addr[:i], addr[i+1:]
		if domain == "" {
			return Address{}, &BadAddressError{addr, "domain is empty"}
		}
		if strings.IndexByte(local, '@') >= 0 {
			return Address{}, &BadAddressError{addr, "more than one @; quote the local part if it holds one"}
		}
	}
	a, err := r.Parse(local, domain)
	if bad, ok := err.(*BadAddressError); ok {
		bad.Address = addr
	}
	return a, err
}

// unquote reads the quoted-string at the start of s (RFC 5321 section 4.1.2).
func unquote(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// String gives the address as it came, quoted where RFC 5321 wants it; the domain is in lower case.
func (a Address) String() string {
	local := a.Full
	if local == "" {
		local = a.Local
	}
	return join(quoteLocal(local), a.Domain)
}

// shown is the address for messages: as String gives it, unless somebody could be misled by it.
func (a Address) shown() string {
	s := a.String()
	if len(s) > 2*maxPart || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Sprintf("%+q", clip(s))
	}
	return s
}

// clip keeps messages short. The verb %+q copes with a cut inside a rune.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// quoteLocal writes a local part as a dot-string if it is one, else as a quoted-string.
func quoteLocal(s string) string {
	atom := false // an atom must follow
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		switch c := s[i]; {
		case c == '.':
			plain, atom = atom, false
		case isAlnum(c) || c >= utf8.RuneSelf || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
			atom = true
		default:
			plain = false
		}
	}
	if plain && atom {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func join(local, domain string) string {
	if domain == "" {
		return local
	}
	return local + "@" + domain
}

// badLocal says what is wrong with a decoded local part, or "".
func badLocal(s string) string {
	if s == "" {
		return "local part is empty"
	}
	return badText("local part", s)
}

// cleanDomain gives the form in which domains are compared.
func cleanDomain(s string) (domain, reason string) {
	if s == "" {
		return "", ""
	}
	if reason := badText("domain", s); reason != "" {
		return "", reason
	}
	d := strings.ToLower(strings.TrimSuffix(s, "."))
	if d == "" || d[0] == '.' || d[len(d)-1] == '.' || strings.Contains(d, "..") {
		return "", "domain has an empty label"
	}
	if len(d) > maxPart { // some letters are longer in lower case
		return "", "domain is too long in lower case"
	}
	if strings.ContainsAny(d, "@/\\\" ") {
		return "", "domain holds an octet that no domain has"
	}
	return d, ""
}

func badText(what, s string) string {
	if len(s) > maxPart {
		return fmt.Sprintf("%s has %d octets, at most %d are allowed", what, len(s), maxPart)
	}
	ascii := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return what + " holds a control octet"
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	if ascii {
		return ""
	}
	if !utf8.ValidString(s) {
		return what + " is not valid UTF-8"
	}
	if strings.IndexFunc(s, unicode.IsControl) >= 0 {
		return what + " holds a control character"
	}
	return ""
}

// ErrUnsafe is what PathComponent's refusals are, by errors.Is.
var ErrUnsafe = errors.New("cannot be the name of a directory")

// PathComponent returns s if it may be used as the name of one directory. It refuses what is empty, longer than 255 octets
// or not UTF-8, what holds "/" or a control character, and what begins with a dot: "." and ".." leave the place, and below
// a Maildir any other such name is a folder (Maildir++). Every part of an address goes through here on its way into a path.
func PathComponent(s string) (string, error) {
	reason := ""
	switch {
	case s == "":
		reason = "it is empty"
	case s[0] == '.':
		reason = "it begins with a dot"
	case strings.IndexByte(s, '/') >= 0:
		reason = "it holds a /"
	default:
		reason = badText("it", s)
	}
	if reason != "" {
		return "", fmt.Errorf("%+q %w: %s", clip(s), ErrUnsafe, reason)
	}
	return s, nil
}
