package userdb

import (
	"context"
	"errors"
	"fmt"
)

// The answers that are not a mailbox. Everything else a Database returns means "try later".
var (
	// ErrNoSuchUser: the database is up and knows that this address has no mailbox. Permanent.
	ErrNoSuchUser = errors.New("no such user")
	// ErrNoSuchDomain: no database answers for the domain at all. It is an ErrNoSuchUser as well.
	ErrNoSuchDomain = fmt.Errorf("no such domain: %w", ErrNoSuchUser)
	// ErrDisabled: the account is known and an administrator has said that it takes no mail. Permanent.
	ErrDisabled = errors.New("account takes no mail")
	// ErrBadRecord: the account is known, but its record cannot be used (relative home, group 0). Temporary: it is
	// the administrator's mistake and not the sender's. Lookup errors that are an ErrBadRecord say what to repair.
	ErrBadRecord = errors.New("user record cannot be used")
)

// Database says who owns an address.
//
// Lookup returns exactly one of a User and an error. The error is an ErrNoSuchUser (by errors.Is) only if the
// database is certain; ErrDisabled and ErrBadAddress are the other permanent answers; any other error is temporary.
// The User may be shared with other callers and must not be changed. Lookup may be called from any number of
// goroutines, honours ctx where it can wait, and is called with addresses that came from the network.
//
// String names the database for logs, for instance "passwd-file /etc/lmtpd/users".
type Database interface {
	Lookup(ctx context.Context, a Address) (*User, error)
	String() string
}

// User is the owner of an address. It is shared and read-only.
type User struct {
	Name   string            // canonical name in its database, for logs and for %-variables in records
	Owner  *Owner            // nil: whoever the process runs as owns the mail
	Home   string            // absolute path, or "" if the record has none
	Mail   string            // the Maildir this record itself names, unexpanded (~, %u, %n, %d); "" if it names none
	Extra  map[string]string // remaining extra fields, without their userdb_ prefix; nil if there are none
	Source string            // the database that answered, as its String says
}

// Owner is the Unix account that mail is written as. UID and GID are never 0.
type Owner struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, without GID and without 0; sorted
}
