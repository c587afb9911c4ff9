// Package userdbtest holds the tests that every user database passes, in the manner of testing/fstest.
package userdbtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/lmtpd/lmtpd/userdb"
)

// Known is an address that the database under test answers for, and with what.
type Known struct {
	Address userdb.Address
	User    userdb.User // Source need not be set
}

// Subject is a database with what it ought to say.
type Subject struct {
	Database userdb.Database
	Known    []Known          // at least one
	Unknown  []userdb.Address // addresses without a mailbox; none if the database knows everybody
	Disabled []userdb.Address // addresses of accounts that take no mail

	// Break makes the database fail until Repair; nil if it cannot fail.
	Break, Repair func()
}

// Run tests databases that open makes. Each test opens one of its own; open uses t.Cleanup to close it.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"Known", testKnown},
		{"Unknown", testUnknown},
		{"Disabled", testDisabled},
		{"Hostile", testHostile},
		{"SharedUserStays", testSharedUserStays},
		{"CancelledContext", testCancelled},
		{"Broken", testBroken},
		{"Concurrent", testConcurrent},
		{"String", testString},
		{"List", testList},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			if len(s.Known) == 0 {
				t.Fatal("the subject has no known address")
			}
			test.run(t, s)
		})
	}
}

func testKnown(t *testing.T, s Subject) {
	for _, k := range s.Known {
		u, err := lookup(t, s.Database, k.Address)
		if err != nil {
			t.Errorf("%s: %v", k.Address, err)
			continue
		}
		if diff := difference(*u, k.User); diff != "" {
			t.Errorf("%s: %s", k.Address, diff)
		}
		if u.Source == "" {
			t.Errorf("%s: Source is empty", k.Address)
		}
		// Detail and the full local part are the business of whoever delivers.
		a := k.Address
		a.Detail, a.Full = "some detail", a.Local+"+some detail"
		if v, err := lookup(t, s.Database, a); err != nil || difference(*v, *u) != "" {
			t.Errorf("%s: the detail changes the answer: %+v, %v", a, v, err)
		}
	}
}

func testUnknown(t *testing.T, s Subject) {
	if len(s.Unknown) == 0 {
		t.Skip("this database knows everybody")
	}
	for _, a := range s.Unknown {
		if _, err := lookup(t, s.Database, a); !errors.Is(err, userdb.ErrNoSuchUser) {
			t.Errorf("%s: got %v, want ErrNoSuchUser", a, err)
		}
	}
}

func testDisabled(t *testing.T, s Subject) {
	if len(s.Disabled) == 0 {
		t.Skip("this database has no disabled accounts")
	}
	for _, a := range s.Disabled {
		if _, err := lookup(t, s.Database, a); !errors.Is(err, userdb.ErrDisabled) || errors.Is(err, userdb.ErrNoSuchUser) {
			t.Errorf("%s: got %v, want ErrDisabled only", a, err)
		}
	}
}

// hostile are local parts that nobody has and that have misled programs. Some cannot come out of Rules.Parse.
var hostile = []string{
	"", ".", "..", "../x", "../../etc/passwd", "/", "/etc/passwd", "a/b", "-", "-h", "--help", "--version", "-s", "--",
	"0", "00", "-1", "+0", " 0", "4294967295", "99999999999999999999", "0x0", "root:x", "root:", ":", "root\n", "root\x00", "\x00", "\n",
	"a\r\nRCPT TO:<b>", "*", "%", "%s%n", "?", "$(id)", "`id`", "'", `"`, `\`, ";id", "|id", "#", "+", "@", "root@", "@example.org",
	"uid=0", "user=root", "(uid=*)", "*)(uid=*", "' OR '1'='1", "\u202eroot", "\xff\xfe", "caf\u00e9", strings.Repeat("x", 255), strings.Repeat("x", 100_000),
}

func testHostile(t *testing.T, s Subject) {
	if len(s.Unknown) == 0 {
		// It knows everybody: what must never be a path is refused all the same.
		for _, local := range []string{"", ".", "..", "../x", "/", "a/b", "\x00", "a\nb", strings.Repeat("x", 256)} {
			if _, err := lookup(t, s.Database, userdb.Address{Local: local, Domain: "example.org"}); !errors.Is(err, userdb.ErrBadAddress) {
				t.Errorf("local part %.40q: got %v, want ErrBadAddress", local, err)
			}
		}
		for _, domain := range []string{".", "..", "../x", "/", "a/b", "\x00"} {
			if _, err := lookup(t, s.Database, userdb.Address{Local: "bob", Domain: domain}); !errors.Is(err, userdb.ErrBadAddress) {
				t.Errorf("domain %q: got %v, want ErrBadAddress", domain, err)
			}
		}
		return
	}
	for _, local := range hostile {
		for _, domain := range []string{s.Known[0].Address.Domain, "", "..", "\x00"} {
			u, err := lookup(t, s.Database, userdb.Address{Local: local, Domain: domain})
			if err == nil {
				t.Errorf("local part %.40q, domain %q: answered with user %q", local, domain, u.Name)
			} else if domain == s.Known[0].Address.Domain && !errors.Is(err, userdb.ErrNoSuchUser) && !errors.Is(err, userdb.ErrBadAddress) {
				// A temporary answer here would let anybody fill the queues of others.
				t.Errorf("local part %.40q: got %v, want a permanent answer", local, err)
			}
		}
	}
	// The whole address as a quoted local part is somebody else, unless names can hold an @.
	k := s.Known[0].Address
	if _, err := lookup(t, s.Database, userdb.Address{Local: k.Local + "@" + k.Domain}); k.Domain != "" && err == nil {
		t.Errorf(`"%s@%s" as a local part: answered as if it were an address`, k.Local, k.Domain)
	}
}

func testSharedUserStays(t *testing.T, s Subject) {
	k := s.Known[0]
	first, err := lookup(t, s.Database, k.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range s.Known {
		lookup(t, s.Database, other.Address)
	}
	for _, a := range s.Unknown {
		lookup(t, s.Database, a)
	}
	if diff := difference(*first, k.User); diff != "" {
		t.Errorf("a later lookup changed a user that was handed out: %s", diff)
	}
}

func testCancelled(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, k := range s.Known {
		if u, err := s.Database.Lookup(ctx, k.Address); (u == nil) == (err == nil) || permanent(err) {
			t.Errorf("%s with a cancelled context: got %v, %v; want the user or a temporary error", k.Address, u, err)
		}
	}
	for _, a := range s.Unknown {
		if u, err := s.Database.Lookup(ctx, a); u != nil || err == nil {
			t.Errorf("%s with a cancelled context: got %v, %v", a, u, err)
		}
	}
}

func testBroken(t *testing.T, s Subject) {
	if s.Break == nil {
		t.Skip("this database cannot fail")
	}
	s.Break()
	for _, k := range s.Known {
		if _, err := lookup(t, s.Database, k.Address); permanent(err) {
			t.Errorf("%s while the database is broken: permanent answer %v", k.Address, err)
		}
	}
	for _, a := range s.Unknown {
		if _, err := lookup(t, s.Database, a); err == nil || permanent(err) {
			t.Errorf("%s while the database is broken: got %v, want a temporary error", a, err)
		}
	}
	s.Repair()
	testKnown(t, s)
	if len(s.Unknown) > 0 {
		testUnknown(t, s)
	}
}

func testConcurrent(t *testing.T, s Subject) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 4 {
				k := s.Known[(i+j)%len(s.Known)]
				if u, err := lookup(t, s.Database, k.Address); err != nil {
					t.Errorf("%s: %v", k.Address, err)
				} else if diff := difference(*u, k.User); diff != "" {
					t.Errorf("%s: %s", k.Address, diff)
				}
				if len(s.Unknown) > 0 {
					a := s.Unknown[(i+j)%len(s.Unknown)]
					if _, err := lookup(t, s.Database, a); !errors.Is(err, userdb.ErrNoSuchUser) {
						t.Errorf("%s: got %v, want ErrNoSuchUser", a, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func testString(t *testing.T, s Subject) {
	name := s.Database.String()
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		t.Errorf("String gives %q; want a name for logs", name)
	}
	if again := s.Database.String(); again != name {
		t.Errorf("String gives %q, then %q", name, again)
	}
}

// lookup asks and checks what holds for every answer.
func lookup(t *testing.T, db userdb.Database, a userdb.Address) (*userdb.User, error) {
	t.Helper()
	u, err := db.Lookup(t.Context(), a)
	switch {
	case u == nil && err == nil:
		err = fmt.Errorf("neither a user nor an error")
		t.Errorf("%.60q: %v", a, err)
	case u != nil && err != nil:
		t.Errorf("%.60q: both a user and the error %v", a, err)
		u = nil
	case err != nil:
		if text := err.Error(); text == "" || strings.ContainsAny(text, "\x00\r\n") {
			t.Errorf("%.60q: the text of the error is empty or has more than one line: %q", a, text)
		}
	default:
		if u.Name == "" {
			t.Errorf("%.60q: Name is empty", a)
		}
		if u.Home != "" && !filepath.IsAbs(u.Home) {
			t.Errorf("%.60q: Home %q is not absolute", a, u.Home)
		}
		if o := u.Owner; o != nil && (o.UID == 0 || o.GID == 0 || slices.Contains(o.Groups, 0)) {
			t.Errorf("%.60q: owned by root or a root group: %+v", a, *o)
		}
	}
	return u, err
}

func permanent(err error) bool {
	return errors.Is(err, userdb.ErrNoSuchUser) || errors.Is(err, userdb.ErrDisabled) || errors.Is(err, userdb.ErrBadAddress)
}

// difference says where got is not want, or "".
func difference(got, want userdb.User) string {
	switch {
	case got.Name != want.Name:
		return fmt.Sprintf("Name is %q, want %q", got.Name, want.Name)
	case got.Home != want.Home:
		return fmt.Sprintf("Home is %q, want %q", got.Home, want.Home)
	case got.Mail != want.Mail:
		return fmt.Sprintf("Mail is %q, want %q", got.Mail, want.Mail)
	case !maps.Equal(got.Extra, want.Extra):
		return fmt.Sprintf("Extra is %v, want %v", got.Extra, want.Extra)
	case (got.Owner == nil) != (want.Owner == nil):
		return fmt.Sprintf("Owner is %+v, want %+v", got.Owner, want.Owner)
	case got.Owner == nil:
		return ""
	case got.Owner.UID != want.Owner.UID || got.Owner.GID != want.Owner.GID || !slices.Equal(got.Owner.Groups, want.Owner.Groups):
		return fmt.Sprintf("Owner is %+v, want %+v", *got.Owner, *want.Owner)
	}
	return ""
}

// testList: a database that is a Lister names each user, and none that Lookup does not know.
func testList(t *testing.T, s Subject) {
	l, ok := s.Database.(userdb.Lister)
	if !ok {
		t.Skip("not a Lister")
	}
	names := map[string]bool{}
	for a, err := range l.List(t.Context()) {
		if errors.Is(err, userdb.ErrNotListed) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		u, err := lookup(t, s.Database, a)
		if err != nil {
			t.Errorf("lists %s, and then: %v", a, err)
			continue
		}
		names[u.Name] = true
	}
	for _, k := range s.Known {
		if !names[k.User.Name] {
			t.Errorf("does not list %s", k.User.Name)
		}
	}
	for range l.List(t.Context()) {
		break // it has to end where nobody wants more
	}
	if s.Break == nil {
		return
	}
	s.Break()
	defer s.Repair()
	failed := false
	for _, err := range l.List(t.Context()) {
		failed = failed || err != nil
	}
	if !failed {
		t.Error("a broken database lists its users without an error")
	}
}
