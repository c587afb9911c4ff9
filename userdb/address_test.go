package userdb

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	plus := Rules{Delimiter: "+", FoldCase: true}
	for _, c := range []struct {
		rules         Rules
		local, domain string
		want          Address
		text          string
	}{
		{plus, "bob", "example.org", Address{"bob", "", "example.org", "bob"}, "bob@example.org"},
		{plus, "Bob+Lists", "Example.ORG.", Address{"bob", "Lists", "example.org", "Bob+Lists"}, "Bob+Lists@example.org"},
		{plus, "bob+", "", Address{"bob", "", "", "bob+"}, "bob+"},
		{plus, "bob+a+b", "", Address{"bob", "a+b", "", "bob+a+b"}, "bob+a+b"},
		{plus, "+bob", "", Address{"+bob", "", "", "+bob"}, "+bob"},
		{plus, "+bob+x", "", Address{"+bob+x", "", "", "+bob+x"}, "+bob+x"},
		{Rules{Delimiter: "+-"}, "bob-x+y", "", Address{"bob", "x+y", "", "bob-x+y"}, "bob-x+y"},
		{Rules{}, "Bob+x", "d", Address{"Bob+x", "", "d", "Bob+x"}, "Bob+x@d"},
		{Rules{}, "PostMaster", "", Address{"postmaster", "", "", "PostMaster"}, "PostMaster"},
		{plus, "quo ted", "d", Address{"quo ted", "", "d", "quo ted"}, `"quo ted"@d`},
		{plus, `a"b\c`, "d", Address{`a"b\c`, "", "d", `a"b\c`}, `"a\"b\\c"@d`},
		{plus, "a@b", "d", Address{"a@b", "", "d", "a@b"}, `"a@b"@d`},
		{plus, ".a", "d", Address{".a", "", "d", ".a"}, `".a"@d`},
		{plus, "a..b", "d", Address{"a..b", "", "d", "a..b"}, `"a..b"@d`},
		{plus, "JÜRGEN", "Bücher.example", Address{"jürgen", "", "bücher.example", "JÜRGEN"}, "JÜRGEN@bücher.example"},
		{plus, "bob", "[IPv6:::1]", Address{"bob", "", "[ipv6:::1]", "bob"}, "bob@[ipv6:::1]"},
		{plus, "../x", "d", Address{"../x", "", "d", "../x"}, `"../x"@d`}, // not a bad address, but no PathComponent
		{plus, strings.Repeat("x", 255), "", Address{strings.Repeat("x", 255), "", "", strings.Repeat("x", 255)}, strings.Repeat("x", 255)},
	} {
		got, err := c.rules.Parse(c.local, c.domain)
		if err != nil || got != c.want {
			t.Errorf("Parse(%q, %q) = %+v, %v; want %+v", c.local, c.domain, got, err, c.want)
		}
		if got.String() != c.text {
			t.Errorf("Parse(%q, %q).String() = %q; want %q", c.local, c.domain, got, c.text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	rules := Rules{Delimiter: "+-"}
	for _, c := range []struct{ local, domain, reason string }{
		{"", "d", "local part is empty"},
		{"", "", "local part is empty"},
		{"a\x00b", "d", "local part holds a control octet"},
		{"a\nb", "d", "local part holds a control octet"},
		{"a\x7f", "d", "local part holds a control octet"},
		{"a\u0085b", "d", "local part holds a control character"},
		{"a\xffb", "d", "local part is not valid UTF-8"},
		{strings.Repeat("x", 300), "d", "local part has 300 octets, at most 255 are allowed"},
		{"+", "d", "local part is only a delimiter"},
		{"+-+", "d", "local part is only a delimiter"},
		{"a", ".", "domain has an empty label"},
		{"a", "..", "domain has an empty label"},
		{"a", ".d", "domain has an empty label"},
		{"a", "d..", "domain has an empty label"},
		{"a", "b..c", "domain has an empty label"},
		{"a", "../d", "domain has an empty label"},
		{"a", "d/e", "domain holds an octet that no domain has"},
		{"a", "d e", "domain holds an octet that no domain has"},
		{"a", "d\r\n", "domain holds a control octet"},
		{"a", "\xff", "domain is not valid UTF-8"},
		{"a", strings.Repeat("d", 256), "domain has 256 octets, at most 255 are allowed"},
	} {
		_, err := rules.Parse(c.local, c.domain)
		bad, ok := errors.AsType[*BadAddressError](err)
		if !ok || !errors.Is(err, ErrBadAddress) || bad.Reason != c.reason {
			t.Errorf("Parse(%q, %q): %v; want %q", c.local, c.domain, err, c.reason)
		}
		if err != nil && (strings.ContainsAny(err.Error(), "\x00\r\n") || !utf8.ValidString(err.Error()) || len(err.Error()) > 600) {
			t.Errorf("Parse(%q, %q): text %q is not fit for a log", c.local, c.domain, err)
		}
	}
}

func TestParseString(t *testing.T) {
	rules := Rules{Delimiter: "+"}
	for in, want := range map[string]Address{
		"user":                {"user", "", "", "user"},
		"user+x@dom":          {"user", "x", "dom", "user+x"},
		`"quo ted"@dom`:       {"quo ted", "", "dom", "quo ted"},
		`"a\"\\@b+c"@dom`:     {`a"\@b`, "c", "dom", `a"\@b+c`},
		`"user"`:              {"user", "", "", "user"},
		"user@[192.0.2.1]":    {"user", "", "[192.0.2.1]", "user"},
		"user@example.org.":   {"user", "", "example.org", "user"},
		"o'brien@example.org": {"o'brien", "", "example.org", "o'brien"},
	} {
		if got, err := rules.ParseString(in); err != nil || got != want {
			t.Errorf("ParseString(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, reason := range map[string]string{
		"":           "local part is empty",
		"@dom":       "local part is empty",
		`""@dom`:     "local part is empty",
		"user@":      "domain is empty",
		`"user"@`:    "domain is empty",
		"a@b@c":      "more than one @; quote the local part if it holds one",
		`"user`:      "quoted local part has no end",
		`"user\`:     "quoted local part has no end",
		`"user\"@d`:  "quoted local part has no end",
		`"user"x@d`:  "quoted local part is not followed by @",
		"+@dom":      "local part is only a delimiter",
		"a@dom/../x": "domain has an empty label",
	} {
		_, err := rules.ParseString(in)
		if bad, ok := errors.AsType[*BadAddressError](err); !ok || bad.Reason != reason || bad.Address != in {
			t.Errorf("ParseString(%q): %v; want %q", in, err, reason)
		}
	}
}

func TestAddressLiteral(t *testing.T) {
	if s := (Address{Local: "a b", Domain: "d"}).String(); s != `"a b"@d` {
		t.Errorf("String of a literal without Full: %s", s)
	}
}

func TestRulesCheck(t *testing.T) {
	for _, d := range []string{"", "+", "-", "+-_=#%"} {
		if err := (Rules{Delimiter: d}).Check(); err != nil {
			t.Errorf("delimiter %q: %v", d, err)
		}
	}
	for _, d := range []string{"a", "+0", "@", "/", ":", `"`, `\`, " ", "\n", "\x00", "é", "\xff", "(", "+]"} {
		if err := (Rules{Delimiter: d}).Check(); err == nil {
			t.Errorf("delimiter %q: accepted", d)
		}
	}
}

func TestPathComponent(t *testing.T) {
	for _, s := range []string{"bob", "a.b", "a..b", "quo ted", "jürgen", "-x", "~", "a\\b", "a...", strings.Repeat("x", 255)} {
		if got, err := PathComponent(s); err != nil || got != s {
			t.Errorf("PathComponent(%q) = %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ".", "..", "...", ".hidden", "/", "a/b", "../x", "a/..", "\x00", "a\x00b", "a\nb", "\x7f", "a\xff", strings.Repeat("x", 256)} {
		if got, err := PathComponent(s); !errors.Is(err, ErrUnsafe) || got != "" {
			t.Errorf("PathComponent(%q) = %q, %v; want ErrUnsafe", s, got, err)
		}
	}
}

// FuzzParseString: what is accepted is fit for a database, and its text reads as the same address again.
func FuzzParseString(f *testing.F) {
	for _, s := range []string{"user", "user+x@dom", `"quo ted"@dom`, `"a\"\\@b"@d`, "+@d", "a@b@c", "\x00", "é@É", "postMASTER@D.", `"`} {
		f.Add(s, "+", true)
	}
	f.Add("a-b+c@d", "+-", false)
	f.Fuzz(func(t *testing.T, s, delimiter string, fold bool) {
		rules := Rules{Delimiter: delimiter, FoldCase: fold}
		if rules.Check() != nil {
			return
		}
		a, err := rules.ParseString(s)
		if err != nil {
			if !errors.Is(err, ErrBadAddress) || a != (Address{}) {
				t.Fatalf("%q: %+v, %v", s, a, err)
			}
			return
		}
		if a.Local == "" || a.Full == "" || strings.ContainsAny(a.String(), "\x00\r\n") || strings.HasSuffix(a.Domain, ".") {
			t.Fatalf("%q: %+v", s, a)
		}
		if !strings.HasPrefix(strings.ToLower(a.Full), strings.ToLower(a.Local)) || !strings.HasSuffix(a.Full, a.Detail) {
			t.Fatalf("%q: parts are not of the whole: %+v", s, a)
		}
		again, err := rules.ParseString(a.String())
		if err != nil || again != a {
			t.Fatalf("%q: %+v reads again as %+v, %v", s, a, again, err)
		}
	})
}

// FuzzPathComponent: what is accepted stays below the directory.
func FuzzPathComponent(f *testing.F) {
	for _, s := range []string{"bob", "..", "a/b", "\x00", ".x", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := PathComponent(s); err != nil {
			return
		}
		if s == "" || len(s) > 255 || s[0] == '.' || strings.ContainsAny(s, "/\x00\n") {
			t.Fatalf("accepted %q", s)
		}
	})
}
