package userdb

import (
	"context"
	"log/slog"
	"time"
)

// PasswdFileOptions set a PasswdFile up. The zero value is what most sites want.
type PasswdFileOptions struct {
	FoldCase    bool             // read the file's names as Rules.FoldCase reads addresses
	ExactDomain bool             // a name without domain answers only for addresses without one; false: for every domain
	Interval    time.Duration    // how long a version is used before the file is looked at again, and how long a changed file must rest; 0: one second
	MaxSize     int64            // octets; a bigger file is refused; 0: 64 MiB
	Logger      *slog.Logger     // hears of new versions and of broken ones; nil: nobody does
	Clock       func() time.Time // nil: time.Now
}

// PasswdFile is a file of users in Dovecot's passwd-file format.
type PasswdFile struct {
	path string
	opts PasswdFileOptions
}

// NewPasswdFile reads the file.
func NewPasswdFile(path string, opts PasswdFileOptions) (*PasswdFile, error) {
	return &PasswdFile{path: path, opts: opts}, nil
}

// Lookup finds the entry of an address.
func (p *PasswdFile) Lookup(ctx context.Context, a Address) (*User, error) { return nil, ErrNoSuchUser }

// Reload reads the file now, whether it seems to have changed or not.
func (p *PasswdFile) Reload() error { return nil }

// Err says what is wrong with the file as it is now, or nil.
func (p *PasswdFile) Err() error { return nil }

// Len is the number of users in the version in use.
func (p *PasswdFile) Len() int { return 0 }

func (p *PasswdFile) String() string { return "passwd-file " + p.path }
