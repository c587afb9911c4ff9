package delivery

import (
	"context"
	"errors"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

type oneUser struct{ user userdb.User }

func (d oneUser) Lookup(_ context.Context, a userdb.Address) (*userdb.User, error) {
	if a.Local != d.user.Name {
		return nil, userdb.ErrNoSuchUser
	}
	return &d.user, nil
}

func (d oneUser) String() string { return "one" }

func TestExplain(t *testing.T) {
	location, err := ParseLocation("~/Maildir")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{Users: oneUser{userdb.User{Name: "ann", Home: "/home/ann"}}, Rules: userdb.Rules{Delimiter: "+"}, Mailbox: location, Folders: Folders{Detail: true}}
	broken := errors.New("broken")
	for _, test := range []struct {
		address string
		probe   error
		code    int
	}{
		{"ann+lists@example.org", nil, 250},
		{"ann+lists@example.org", maildir.ErrRoot, 451},
		{"ann+lists@example.org", broken, 451},
		{"bob@example.org", nil, 550},
		{"a b@@example.org", nil, 501},
	} {
		x := a.Explain(t.Context(), test.address, func(_ context.Context, target maildir.Target) maildir.Probe {
			if target.Root != "/home/ann" || target.Path != "Maildir" || target.Folder != ".lists" {
				t.Errorf("target %+v", target)
			}
			return maildir.Probe{Err: test.probe}
		})
		if x.Reply.Code != test.code || test.probe != nil && !errors.Is(x.Err, test.probe) || (x.Err == nil) != (test.code == 250) {
			t.Errorf("%s: %+v", test.address, x)
		}
	}
	a.Users = oneUser{userdb.User{Name: "ann"}} // no home
	if x := a.Explain(t.Context(), "ann", nil); x.User == nil || x.Target != nil || x.Reply.Enhanced.String() != "4.3.5" {
		t.Errorf("%+v", x)
	}
}
