package delivery

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
		x := a.Explain(t.Context(), test.address, 0, fakeLooker{probe: func(target maildir.Target) maildir.Probe {
			if target.Root != "/home/ann" || target.Path != "Maildir" || target.Folder != ".lists" {
				t.Errorf("target %+v", target)
			}
			return maildir.Probe{Err: test.probe}
		}})
		if x.Reply.Code != test.code || test.probe != nil && !errors.Is(x.Err, test.probe) || (x.Err == nil) != (test.code == 250) {
			t.Errorf("%s: %+v", test.address, x)
		}
	}
	a.Users = oneUser{userdb.User{Name: "ann"}} // no home
	if x := a.Explain(t.Context(), "ann", 0, nil); x.User == nil || x.Target != nil || x.Reply.Enhanced.String() != "4.3.5" {
		t.Errorf("%+v", x)
	}
}

// fakeLooker says what a test wants.
type fakeLooker struct {
	probe   func(maildir.Target) maildir.Probe
	account func(maildir.Target) (maildir.Account, error)
}

func (f fakeLooker) Probe(_ context.Context, t maildir.Target) maildir.Probe {
	if f.probe == nil {
		return maildir.Probe{}
	}
	return f.probe(t)
}

func (f fakeLooker) Account(_ context.Context, t maildir.Target) (maildir.Account, error) {
	if f.account == nil {
		return maildir.Account{}, nil
	}
	return f.account(t)
}

// The reply is that of a delivery to a mailbox which holds so much, by each policy.
func TestExplainQuota(t *testing.T) {
	location, err := ParseLocation("~/Maildir")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, test := range []struct {
		name   string
		policy QuotaPolicy
		rule   string
		usage  maildir.Usage
		size   int64
		want   string
	}{
		{"no limit", QuotaPolicy{}, "", maildir.Usage{Octets: 1 << 40}, 1 << 40, "250 2.0.0"},
		{"room", QuotaPolicy{Octets: 1000}, "", maildir.Usage{Octets: 400}, 600, "250 2.0.0"},
		{"no room", QuotaPolicy{Octets: 1000}, "", maildir.Usage{Octets: 400}, 601, "452 4.2.2"},
		{"no room for messages", QuotaPolicy{Messages: 7}, "", maildir.Usage{Messages: 7}, 0, "452 4.2.2"},
		{"not full, size not known", QuotaPolicy{Octets: 1000}, "", maildir.Usage{Octets: 999}, 0, "250 2.0.0"},
		{"full, size not known", QuotaPolicy{Octets: 1000}, "", maildir.Usage{Octets: 1000}, 0, "452 4.2.2"},
		{"permanent", QuotaPolicy{Octets: 1000, Over: OverPermanent}, "", maildir.Usage{Octets: 1000}, 1, "552 5.2.2"},
		{"for an hour", QuotaPolicy{Octets: 1000, Over: OverTemporaryFirst, Patience: 2 * time.Hour}, "", maildir.Usage{Octets: 1000}, 1, "452 4.2.2"},
		{"for long", QuotaPolicy{Octets: 1000, Over: OverTemporaryFirst, Patience: time.Minute}, "", maildir.Usage{Octets: 1000}, 1, "552 5.2.2"},
		{"larger than the mailbox", QuotaPolicy{Octets: 1000}, "", maildir.Usage{}, 1001, "552 5.2.3"},
		{"grace", QuotaPolicy{Octets: 1000, Grace: true}, "", maildir.Usage{Octets: 999}, 1 << 30, "250 2.0.0"},
		{"grace used up", QuotaPolicy{Octets: 1000, Grace: true}, "", maildir.Usage{Octets: 1 << 30}, 1, "452 4.2.2"},
		{"the user's own limit", QuotaPolicy{Octets: 1000}, "*:bytes=2000", maildir.Usage{Octets: 1000}, 1000, "250 2.0.0"},
		{"a rule nobody understands", QuotaPolicy{}, "?", maildir.Usage{}, 0, "451 4.3.5"},
	} {
		user := userdb.User{Name: "ann", Home: "/home/ann", Extra: map[string]string{"quota_rule": test.rule}}
		a := &Agent{Users: oneUser{user}, Mailbox: location, Quota: &test.policy}
		x := a.Explain(t.Context(), "ann@example.org", test.size, fakeLooker{account: func(target maildir.Target) (maildir.Account, error) {
			return maildir.Account{Usage: test.usage, Limit: *target.Quota, Since: now.Add(-time.Hour)}, nil
		}})
		if got := x.Reply.Error(); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q (%v)", test.name, got, test.want, x.Err)
		}
	}
}

// A home that hangs does not hold whoever asks.
func TestAccountHangs(t *testing.T) {
	location, err := ParseLocation("~/Maildir")
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{Users: oneUser{userdb.User{Name: "ann", Home: "/home/ann"}}, Mailbox: location, Quota: &QuotaPolicy{}}
	ctx, cancel := context.WithCancelCause(t.Context())
	late := errors.New("late")
	m := a.Account(ctx, userdb.Address{Local: "ann"}, func(context.Context, maildir.Target) (maildir.Account, error) {
		cancel(late)
		select {}
	})
	if !errors.Is(m.Err, late) || m.Mailbox != "/home/ann/Maildir" {
		t.Errorf("%+v", m)
	}
	if m := a.Account(t.Context(), userdb.Address{Local: "bob"}, nil); m.Reply.Code != 550 {
		t.Errorf("%+v", m)
	}
}
