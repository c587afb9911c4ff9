package protocol_test

import (
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		in, local, domain, out string
	}{
		{`user@example.org`, "user", "example.org", `user@example.org`},
		{`User@Example.ORG`, "User", "Example.ORG", `User@Example.ORG`},
		{`postmaster`, "postmaster", "", `postmaster`},
		{`"user"@example.org`, "user", "example.org", `user@example.org`},
		{`"a b"@example.org`, "a b", "example.org", `"a b"@example.org`},
		{`"a\"b\\c"@example.org`, `a"b\c`, "example.org", `"a\"b\\c"@example.org`},
		{`"\a"@example.org`, "a", "example.org", `a@example.org`},
		{`"quoted"`, "quoted", "", `quoted`},
		{`"("`, "(", "", `"("`},
		{`user@[192.0.2.1]`, "user", "[192.0.2.1]", `user@[192.0.2.1]`},
		{`user@[IPv6:2001:db8::1]`, "user", "[IPv6:2001:db8::1]", `user@[IPv6:2001:db8::1]`},
		{`@a.example,@b.example:user@c.example`, "user", "c.example", `user@c.example`},
		{`(comment)user@example.org`, "user", "example.org", `user@example.org`},
		{`user@example.org (comment)`, "user", "example.org", `user@example.org`},
		{`jürgen@exämple.org`, "jürgen", "exämple.org", `jürgen@exämple.org`},
		{`"jürgen müller"@example.org`, "jürgen müller", "example.org", `"jürgen müller"@example.org`},
		{`user@example.org.`, "user", "example.org.", `user@example.org.`},
		{`../..@example.org`, "../..", "example.org", `../..@example.org`},
	} {
		p, err := protocol.ParsePath(c.in, true)
		if err != nil || p.Local != c.local || p.Domain != c.domain || p.String() != c.out || p.IsNull() {
			t.Errorf("ParsePath(%q) = %+v (%q), %v, want local %q, domain %q, %q", c.in, p, p, err, c.local, c.domain, c.out)
		}
	}
	for _, in := range []string{
		"", " ", "@example.org", "user@", "user@@example.org", "a@b@c", "a b@example.org", `"a@example.org`, `"a"b@example.org`,
		`""@example.org`, `"a\`, "a\x00b@example.org", "\"a\nb\"@example.org", "\"a\\\x01\"@example.org", "user@.example.org", "user@example..org",
		"user@exa mple.org", "user@[", "user@[]", "user@[a", "user@[a]b", "user@[a[b]", `user@[a"]`, "user@[a>b]", "a,b@example.org", "a<b@example.org", "a(b@example.org", "a[b@example.org",
		"@a.example user@example.org", "@a..b:user@example.org", "@:user@example.org", strings.Repeat("a", 255), "\xff@example.org", "\"\xff\"@example.org",
	} {
		if p, err := protocol.ParsePath(in, true); err == nil {
			t.Errorf("ParsePath(%q) = %+v, want an error", in, p)
		}
	}
	if _, err := protocol.ParsePath("jürgen@example.org", false); err == nil {
		t.Error("an address outside ASCII was taken without SMTPUTF8")
	}
	if p := (protocol.Path{}); !p.IsNull() || p.String() != "" {
		t.Errorf("zero path: %+v", p)
	}
}

// FuzzPath parses what String writes, and expects the same address again.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		`user@example.org`, `"a b"@example.org`, `"a\"\\"@[192.0.2.1]`, `@a,@b:u@c`, `(x)u@c(y)`, `postmaster`, `jürgen@example.org`, `"\`,
	} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, utf8 bool) {
		p, err := protocol.ParsePath(s, utf8)
		if err != nil {
			return
		}
		if p.Local == "" || p.IsNull() || strings.ContainsAny(p.Domain, " \"\r\n\x00") {
			t.Fatalf("ParsePath(%q) = %+v", s, p)
		}
		out := p.String()
		if strings.ContainsFunc(out, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("ParsePath(%q).String() = %q has a control character", s, out)
		}
		again, err := protocol.ParsePath(out, utf8)
		if err != nil && len(out) > 254 {
			return // quoting made it too long
		}
		if err != nil || again.Local != p.Local || again.Domain != p.Domain {
			t.Fatalf("%q: %+v is written %q, which is %+v, %v", s, p, out, again, err)
		}
	})
}
