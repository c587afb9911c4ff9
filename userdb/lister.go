package userdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Lister is a Database that can name its users.
//
// List yields an address for each: one that Lookup of the same database takes, without domain where the database knows the
// user under every domain. Users that take no mail are left out. An error is yielded with a zero Address; it means that
// users are missing, and more addresses may follow it. It is an ErrNotListed where no repetition would help.
type Lister interface {
	Database
	List(ctx context.Context) iter.Seq2[Address, error]
}

// ErrNotListed: a database cannot name its users, or not all of them.
var ErrNotListed = errors.New("cannot list its users")

// List yields what the entries list, for the domains of each: a user whom a database knows under every domain has an
// address in each domain of its entry. An entry that is no Lister yields an ErrNotListed.
func (c Chain) List(ctx context.Context) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		for _, e := range c {
			for a, err := range list(ctx, e.Database) {
				if err != nil {
					if !yield(Address{}, err) {
						return
					}
					continue
				}
				for _, a := range e.addresses(a) {
					if !yield(a, nil) {
						return
					}
				}
			}
		}
	}
}

// addresses are those under which an entry knows a user of its database.
func (e Entry) addresses(a Address) []Address {
	if len(e.Domains) == 0 || a.Domain != "" && e.serves(a.Domain) {
		return []Address{a}
	}
	var all []Address
	if a.Domain == "" {
		for _, d := range e.Domains {
			a.Domain = d
			all = append(all, a)
		}
	}
	return all
}

// list is List of a database, if it has one.
func list(ctx context.Context, db Database) iter.Seq2[Address, error] {
	if l, ok := db.(Lister); ok {
		return l.List(ctx)
	}
	return func(yield func(Address, error) bool) {
		yield(Address{}, fmt.Errorf("%s: %w", db, ErrNotListed))
	}
}

// List yields what the database behind the cache lists.
func (c *Cache) List(ctx context.Context) iter.Seq2[Address, error] { return list(ctx, c.Database) }

// List yields the users of the version in use, in no order.
func (p *PasswdFile) List(context.Context) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		p.mu.Lock()
		s := p.look()
		p.mu.Unlock()
		if s.doubt != nil && !yield(Address{}, fmt.Errorf("%s: users may be missing: %w", p, s.doubt)) {
			return
		}
		if s.gone {
			return
		}
		for k, r := range s.table.users {
			if !r.disabled && !yield(Address{Local: k.local, Domain: k.domain}, nil) {
				return
			}
		}
	}
}

// allAccounts is an accountSource that can name all accounts.
type allAccounts interface {
	accounts(ctx context.Context) ([]account, error)
}

// List yields the accounts from MinUID on whose record can be used. Where a name service may be remote, that is an
// ErrNotListed besides: sssd and others list nobody unless they are told to.
func (s *System) List(ctx context.Context) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		src := s.source("")
		lister, ok := src.(allAccounts)
		if !ok {
			yield(Address{}, fmt.Errorf("%s: %w", s, ErrNotListed))
			return
		}
		all, err := lister.accounts(ctx)
		if err != nil {
			yield(Address{}, fmt.Errorf("%s: list of accounts: %w", s, err))
			return
		}
		for _, acc := range all {
			if !s.mailless(&acc) && possibleLogin(acc.name) && !yield(Address{Local: acc.name}, nil) {
				return
			}
		}
		if !src.nss() {
			return
		}
		path := orDefault(s.NSSwitch, "/etc/nsswitch.conf")
		data, _ := readBounded(path)
		if remote := remoteNSS(string(data), nil); len(remote) > 0 {
			yield(Address{}, fmt.Errorf("%s: name service %s of %s need not name all its accounts: %w", s, strings.Join(remote, ", "), path, ErrNotListed))
		}
	}
}
