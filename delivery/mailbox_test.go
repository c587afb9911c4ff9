package delivery

import (
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/userdb"
)

func TestParseLocationErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":               "neither below the home nor absolute",
		"Maildir":        "neither below the home nor absolute",
		"%u":             "neither below the home nor absolute",
		"~":              "neither below the home nor absolute",
		"~bob/Maildir":   "neither below the home nor absolute",
		"/":              "neither below the home nor absolute",
		"~/":             "neither below the home nor absolute",
		"~//./":          "neither below the home nor absolute",
		"/var/../mail":   `has a ".." in it`,
		"~/..":           `has a ".." in it`,
		"/..":            `has a ".." in it`,
		"/home/~bob/x":   `has a "~" that is not at its beginning`,
		"~/~/x":          `has a "~" that is not at its beginning`,
		"/var/%x":        `has "%x", which is no variable`,
		"/var/%":         "ends in %",
		"/var/%%%":       "ends in %",
		"/var/%/x":       `has "%/", which is no variable`,
		"/var/a\x00b":    "control character",
		"/var/a\nb/%n":   "control character",
		"~/Mail\x7fdir":  "control character",
		"/var/%N/unique": `has "%N", which is no variable`,
	} {
		if _, err := ParseLocation(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestLocate(t *testing.T) {
	bob := userdb.User{Name: "bob@example.org", Home: "/home/bob", Source: "test"}
	at := func(domain string) userdb.Address { return userdb.Address{Local: "bob", Domain: domain} }
	for _, test := range []struct {
		location  string
		user      userdb.User
		addr      userdb.Address
		root, rel string
	}{
		{"~/Maildir", bob, at("example.org"), "/home/bob", "Maildir"},
		{"~//Mail/./in", bob, at("example.org"), "/home/bob", "Mail/in"},
		{"/var/mail/%d/%n", bob, at("example.org"), "/var/mail", "example.org/bob"},
		{"/var/mail/%u/Maildir", bob, at("example.org"), "/var/mail", "bob@example.org/Maildir"},
		{"/var/mail/%d/%n", userdb.User{Name: "bob"}, at("example.org"), "/var/mail", "example.org/bob"},
		{"/var/mail/%d/%n", userdb.User{Name: "bob"}, at(""), "/var/mail", "mx.example.org/bob"},
		{"/var/mail/box", bob, at("x"), "/var/mail", "box"},
		{"/box", bob, at("x"), "/", "box"},
		{"/srv/100%%/%n", bob, at("x"), "/srv", "100%/bob"},
		{"/srv/x-%n-%%/m", bob, at("x"), "/srv", "x-bob-%/m"},
		{"/srv/.%n", bob, at("x"), "/srv", ".bob"},
		// The record's own mailbox comes first.
		{"~/Maildir", userdb.User{Name: "bob", Home: "/home/bob", Mail: "~/mail"}, at("x"), "/home/bob", "mail"},
		{"~/Maildir", userdb.User{Name: "bob", Mail: "/srv/%n/box"}, at("x"), "/srv", "bob/box"},
	} {
		l, err := ParseLocation(test.location)
		if err != nil {
			t.Fatal(err)
		}
		if l.String() != test.location {
			t.Errorf("%q is written %q", test.location, l)
		}
		root, rel, err := l.locate(&test.user, test.addr, "mx.example.org")
		if err != nil || root != test.root || rel != test.rel {
			t.Errorf("%s of %+v: %q, %q, %v; want %q, %q", test.location, test.user, root, rel, err, test.root, test.rel)
		}
	}
}

// An account whose mailbox cannot be placed is the administrator's to mend: the
// mail waits meanwhile.
func TestLocateErrors(t *testing.T) {
	for _, test := range []struct {
		location string
		user     userdb.User
		addr     userdb.Address
		want     string
	}{
		{"~/Maildir", userdb.User{Name: "bob", Source: "test"}, userdb.Address{}, `user "bob" of test has no home`},
		{"/m/%n", userdb.User{Name: "../x"}, userdb.Address{}, `%n: "../x"`},
		{"/m/%n", userdb.User{Name: ".."}, userdb.Address{}, "begins with a dot"},
		{"/m/.%n", userdb.User{Name: "."}, userdb.Address{}, "begins with a dot"},
		{"/m/%u", userdb.User{Name: "a/b"}, userdb.Address{}, "holds a /"},
		{"/m/%n", userdb.User{Name: "a\x00b"}, userdb.Address{}, "control"},
		{"/m/%n", userdb.User{Name: ""}, userdb.Address{}, "is empty"},
		{"/m/%d/x", userdb.User{Name: "bob@../.."}, userdb.Address{}, "begins with a dot"},
		{"/m/%d", userdb.User{Name: "bob"}, userdb.Address{Domain: "a/b"}, "holds a /"},
		{"/m/%n%n", userdb.User{Name: strings.Repeat("x", 200)}, userdb.Address{}, "400 octets"},
		{"/m/%n", userdb.User{Name: "bob", Mail: "relative"}, userdb.Address{}, "mail location"},
	} {
		l, err := ParseLocation(test.location)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = l.locate(&test.user, test.addr, "mx")
		if !errors.Is(err, userdb.ErrBadRecord) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s of %q: %v, want %q", test.location, test.user.Name, err, test.want)
		}
	}
}

func TestLocationVaries(t *testing.T) {
	for in, want := range map[string]bool{"~/Maildir": true, "/m/%n": true, "/m/box": false, "/m/50%%": false} {
		if l, err := ParseLocation(in); err != nil || l.Varies() != want {
			t.Errorf("%q: %v, %v", in, l.Varies(), err)
		}
	}
}

// Whatever the template and whoever the user, the Maildir lies below the root.
func FuzzLocation(f *testing.F) {
	f.Add("~/Maildir", "bob@example.org", "example.org")
	f.Add("/var/mail/%d/%n", "../../etc", "..")
	f.Add("/%u/.%n/%%", ".", "a/b")
	f.Fuzz(func(t *testing.T, template, name, domain string) {
		l, err := ParseLocation(template)
		if err != nil {
			return
		}
		if l.String() != template {
			t.Errorf("%q is written %q", template, l)
		}
		root, rel, err := l.locate(&userdb.User{Name: name, Home: "/home/x"}, userdb.Address{Domain: domain}, "mx")
		if err != nil {
			if !errors.Is(err, userdb.ErrBadRecord) {
				t.Errorf("%q: %v", template, err)
			}
			return
		}
		if !path.IsAbs(root) || path.Clean(root) != root || rel == "" || path.IsAbs(rel) || strings.ContainsRune(root+rel, 0) {
			t.Errorf("%q of %q: %q, %q", template, name, root, rel)
		}
		for c := range strings.SplitSeq(rel, "/") {
			if c == "" || c == "." || c == ".." {
				t.Errorf("%q of %q: %q", template, name, rel)
			}
		}
		if n := strings.Count(rel, "/") + 1; n != len(l.parts) {
			t.Errorf("%q of %q: %d components of %d", template, name, n, len(l.parts))
		}
	})
}
