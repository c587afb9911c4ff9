package userdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// stub is a database that always says the same and counts how often.
type stub struct {
	name  string
	user  *User
	err   error
	asked int
}

func (s *stub) Lookup(context.Context, Address) (*User, error) { s.asked++; return s.user, s.err }
func (s *stub) String() string                                 { return s.name }

func TestChain(t *testing.T) {
	down := errors.New("down")
	bob := &stub{name: "bob", user: &User{Name: "bob"}}
	no := &stub{name: "no", err: fmt.Errorf("x: %w", ErrNoSuchUser)}
	noDomain := &stub{name: "nodomain", err: ErrNoSuchDomain}
	later := &stub{name: "later", err: down}
	disabled := &stub{name: "disabled", err: ErrDisabled}
	odd := &stub{name: "odd"}
	for _, c := range []struct {
		name   string
		chain  Chain
		domain string
		want   error // nil: bob
	}{
		{"none", nil, "d", ErrNoSuchDomain},
		{"first", Chain{{Database: bob}, {Database: later}}, "d", nil},
		{"second", Chain{{Database: no}, {Database: bob}}, "d", nil},
		{"all say no", Chain{{Database: no}, {Database: no}}, "d", ErrNoSuchUser},
		{"down stops", Chain{{Database: later}, {Database: bob}}, "d", down},
		{"down after no", Chain{{Database: no}, {Database: later}, {Database: bob}}, "d", down},
		{"disabled stops", Chain{{Database: disabled}, {Database: bob}}, "d", ErrDisabled},
		{"domain", Chain{{later, []string{"e"}}, {bob, []string{"c", "d"}}}, "d", nil},
		{"without domain", Chain{{later, []string{"d"}}, {bob, []string{""}}}, "", nil},
		{"no such domain", Chain{{bob, []string{"d"}}}, "e", ErrNoSuchDomain},
		{"all say no domain", Chain{{Database: noDomain}, {bob, []string{"d"}}}, "e", ErrNoSuchDomain},
		{"one knows the domain", Chain{{Database: noDomain}, {Database: no}, {Database: noDomain}}, "e", ErrNoSuchUser},
		{"chain in chain", Chain{{Chain{{bob, []string{"d"}}}, nil}, {Database: no}}, "d", nil},
	} {
		u, err := c.chain.Lookup(t.Context(), Address{Local: "bob", Domain: c.domain})
		if c.want == nil && (err != nil || u != bob.user) || c.want != nil && (u != nil || !errors.Is(err, c.want)) {
			t.Errorf("%s: %+v, %v; want %v", c.name, u, err, c.want)
		}
		if c.want == ErrNoSuchUser && errors.Is(err, ErrNoSuchDomain) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if u, err := (Chain{{Database: odd}, {Database: bob}}).Lookup(t.Context(), Address{Local: "bob"}); u != nil || err == nil || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("a driver without an answer: %+v, %v", u, err)
	}
	if s := (Chain{{Database: bob}, {Database: no}}).String(); s != "bob, no" {
		t.Errorf("String: %s", s)
	}
}

func TestCache(t *testing.T) {
	now := time.Now()
	db := &stub{name: "slow", user: &User{Name: "bob"}}
	c := &Cache{Database: db, Clock: func() time.Time { return now }, Size: 2}
	ask := func(local string, wantAsked int, wantErr error) {
		t.Helper()
		db.asked = 0
		u, err := c.Lookup(t.Context(), Address{Local: local})
		if db.asked != wantAsked || !errors.Is(err, wantErr) || (u == nil) != (err != nil) {
			t.Errorf("%s: asked %d times, want %d; %v", local, db.asked, wantAsked, err)
		}
	}
	ask("bob", 1, nil)
	ask("bob", 0, nil)
	now = now.Add(4 * time.Second)
	ask("bob", 0, nil)
	now = now.Add(time.Second)
	ask("bob", 1, nil)
	now = now.Add(-time.Hour) // a clock that is set back
	ask("bob", 1, nil)
	ask("ann", 1, nil)
	ask("eve", 1, nil)
	if len(c.users) != 2 {
		t.Errorf("%d users in a cache of 2", len(c.users))
	}
	ask("eve", 0, nil)
	c.Flush()
	ask("eve", 1, nil)
	db.user, db.err = nil, ErrNoSuchUser
	now = now.Add(time.Minute)
	ask("eve", 1, ErrNoSuchUser)
	ask("eve", 1, ErrNoSuchUser) // never remembered
	db.err = errors.New("down")
	ask("eve", 1, db.err)
	ask("eve", 1, db.err)
	if c.String() != "slow" {
		t.Errorf("String: %s", c)
	}
}

func TestAny(t *testing.T) {
	for _, a := range []Address{{Local: "bob", Domain: "example.org"}, {Local: "bob"}, {Local: "quo ted", Domain: "[192.0.2.1]"}} {
		if u, err := (Any{}).Lookup(t.Context(), a); err != nil || u.Owner != nil || u.Home != "" || u.Name != join(a.Local, a.Domain) {
			t.Errorf("%s: %+v, %v", a, u, err)
		}
	}
	for _, a := range []Address{{}, {Local: ".."}, {Local: "../x", Domain: "d"}, {Local: "bob", Domain: ".."}, {Local: "a\x00"}, {Local: strings.Repeat("x", 300)}} {
		if u, err := (Any{}).Lookup(t.Context(), a); u != nil || !errors.Is(err, ErrBadAddress) {
			t.Errorf("%s: %+v, %v", a, u, err)
		}
	}
}
