package userdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Entry is one database of a Chain.
type Entry struct {
	Database Database
	Domains  []string // ask it for these domains only, in lower case; "" is an address without domain; none: ask it for all
}

func (e Entry) serves(domain string) bool {
	return len(e.Domains) == 0 || slices.Contains(e.Domains, domain)
}

// Chain asks databases in order; the first that answers has answered. Any error other than ErrNoSuchUser ends the search:
// a later database must not answer for one that is down. It is a Database itself.
type Chain []Entry

// Lookup asks each entry that serves the domain. ErrNoSuchDomain: there was none, or all of them said so.
func (c Chain) Lookup(ctx context.Context, a Address) (*User, error) {
	answer := ErrNoSuchDomain
	for _, e := range c {
		if !e.serves(a.Domain) {
			continue
		}
		u, err := e.Database.Lookup(ctx, a)
		switch {
		case err == nil && u != nil:
			return u, nil
		case err == nil:
			// A driver's mistake; taken for "no such user" it would bounce mail.
			return nil, fmt.Errorf("%s: neither a user nor an error", e.Database)
		case !errors.Is(err, ErrNoSuchUser):
			return nil, err
		case !errors.Is(err, ErrNoSuchDomain):
			answer = ErrNoSuchUser
		}
	}
	return nil, fmt.Errorf("%s: %w", a.shown(), answer)
}

// String lists the databases in the order in which they are asked.
func (c Chain) String() string {
	names := make([]string, len(c))
	for i, e := range c {
		names[i] = e.Database.String()
	}
	return strings.Join(names, ", ")
}
