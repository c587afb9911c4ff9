package delivery

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// records is a database of a test, by local part.
type records map[string]*userdb.User

func (r records) String() string { return "records" }

func (r records) Lookup(_ context.Context, a userdb.Address) (*userdb.User, error) {
	switch u, ok := r[a.Local]; {
	case a.Local == "down":
		return nil, errors.New("database is down")
	case !ok:
		return nil, userdb.ErrNoSuchUser
	default:
		return u, nil
	}
}

func TestAuthorize(t *testing.T) {
	home, err := ParseLocation("~/Maildir/%d")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{
		Mailbox: home, Rules: userdb.Rules{Delimiter: "+", FoldCase: true}, Trace: TraceOptions{Hostname: "mx.example.org"},
		Users: records{
			"bob":  {Name: "bob", Home: "/home/bob", Owner: &userdb.Owner{UID: 1001, GID: 2001, Groups: []uint32{5, 6}}},
			"ann":  {Name: "ann", Home: "/home/ann"},
			"odd":  {Name: "odd", Owner: &userdb.Owner{UID: 1002, GID: 2002}},
			"q uo": {Name: "quo", Home: "/home/quo", Mail: "/var/mail/%n"},
		},
	}
	bob := maildir.Target{
		Account: "Bob+lists@example.org", Root: "/home/bob", Path: "Maildir/example.org", Folder: ".lists",
		Owner: &maildir.Owner{UID: 1001, GID: 2001, Groups: []uint32{0, 42}},
	}
	got := bob
	if err := a.Authorize(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Owner.Groups, []uint32{5, 6}) {
		t.Errorf("groups are %v: the front has chosen them", got.Owner.Groups)
	}
	for name, c := range map[string]struct {
		account string
		change  func(*maildir.Target)
		want    error // nil: allowed
	}{
		"no domain":        {"bob", func(t *maildir.Target) { t.Path = "Maildir/mx.example.org" }, nil},
		"no owner":         {"ann@example.org", func(t *maildir.Target) { t.Root, t.Owner = "/home/ann", nil }, nil},
		"own location":     {`"q uo"@example.org`, func(t *maildir.Target) { t.Root, t.Path, t.Owner = "/var/mail", "quo", nil }, nil},
		"another's home":   {"bob@example.org", func(t *maildir.Target) { t.Root = "/home/ann" }, maildir.ErrPath},
		"root directory":   {"bob@example.org", func(t *maildir.Target) { t.Root = "/" }, maildir.ErrPath},
		"the home itself":  {"bob@example.org", func(t *maildir.Target) { t.Path = "" }, maildir.ErrPath},
		"other directory":  {"bob@example.org", func(t *maildir.Target) { t.Path = ".ssh" }, maildir.ErrPath},
		"way up":           {"bob@example.org", func(t *maildir.Target) { t.Path += "/.." }, maildir.ErrPath},
		"other spelling":   {"bob@example.org", func(t *maildir.Target) { t.Root = "/home/../home/bob" }, maildir.ErrPath},
		"another uid":      {"bob@example.org", func(t *maildir.Target) { t.Owner.UID = 1002 }, maildir.ErrOwner},
		"another gid":      {"bob@example.org", func(t *maildir.Target) { t.Owner.GID = 42 }, maildir.ErrOwner},
		"nobody":           {"bob@example.org", func(t *maildir.Target) { t.Owner = nil }, maildir.ErrOwner},
		"somebody":         {"ann@example.org", func(t *maildir.Target) { t.Root = "/home/ann" }, maildir.ErrOwner},
		"no such account":  {"eve@example.org", func(*maildir.Target) {}, maildir.ErrOwner},
		"no account":       {"", func(*maildir.Target) {}, maildir.ErrOwner},
		"no address":       {"bob@", func(*maildir.Target) {}, maildir.ErrOwner},
		"no home":          {"odd@example.org", func(*maildir.Target) {}, userdb.ErrBadRecord},
		"the other domain": {"bob@example.net", func(*maildir.Target) {}, maildir.ErrPath},
	} {
		target := bob
		owner := *bob.Owner
		target.Owner, target.Account = &owner, c.account
		c.change(&target)
		if err := a.Authorize(t.Context(), &target); !errors.Is(err, c.want) || err != nil && !replyFor(err).Temporary() {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	down := bob
	down.Account = "down@example.org"
	if err := a.Authorize(t.Context(), &down); err == nil || errors.Is(err, maildir.ErrOwner) || errors.Is(err, maildir.ErrPath) {
		t.Errorf("a database that is down: %v", err)
	}
}

// The account of each target that the Agent makes is one that it authorizes.
func TestAuthorizeOwnTargets(t *testing.T) {
	for _, addr := range []string{"bob@example.org", "Bob+Lists@Example.ORG", "bob+", `"bob+a b"@example.org`, `"bob+\"\\"@example.org`, "bob+ü@example.org"} {
		rules := userdb.Rules{Delimiter: "+", FoldCase: true}
		a, err := rules.ParseString(addr)
		if err != nil {
			t.Fatal(err)
		}
		again, err := rules.ParseString(a.String())
		if err != nil || again != a {
			t.Errorf("%s: %+v became %+v (%v)", addr, a, again, err)
		}
	}
}
