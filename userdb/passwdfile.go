package userdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// PasswdFileOptions set a PasswdFile up. The zero value is what most sites want.
type PasswdFileOptions struct {
	FoldCase    bool             // read the file's names as Rules.FoldCase reads addresses
	ExactDomain bool             // a name without domain answers only for addresses without one; false: for every domain
	Interval    time.Duration    // how long between two looks at the file, and how long a changed file must have rested; 0: one second
	MaxSize     int64            // octets; a bigger file is refused; 0: 64 MiB
	Logger      *slog.Logger     // hears of new versions and of broken ones, once each; nil: nobody does
	Clock       func() time.Time // nil: time.Now
}

// PasswdFile is a file of users in Dovecot's passwd-file format, a user per line:
//
//	user[@domain]:password:uid:gid:gecos:home:shell:extra fields
//
// Fields at the end may be missing and any but the user may be empty; password, gecos and shell are not used. Without uid
// and gid nobody in particular owns the mail (User.Owner is nil). Extra fields are separated by spaces; those that begin
// with userdb_ count: userdb_mail=maildir:PATH is User.Mail, userdb_uid, userdb_gid and userdb_home win over the columns,
// userdb_disabled=yes makes Lookup say ErrDisabled (this one is not Dovecot's), the rest is User.Extra. Empty lines and
// lines that begin with # are skipped; lines may end with CRLF. The last line must be ended too, and there is no other line
// that is skipped: a file with any mistake is refused as a whole.
//
// The file is looked at again (one stat) once per Interval, and before any answer that somebody does not exist. A new
// version is read when it has rested for Interval, because it may be half written. Until it is read, and for as long as it
// is broken (or has no user left, which only Reload accepts), the version before it goes on answering for the users it has, and a user that it has not is a temporary error.
// When the file is gone, every answer is a temporary error.
type PasswdFile struct {
	path  string
	name  string
	opts  PasswdFileOptions
	mu    sync.Mutex // held while looking at the file; only the holder stores state
	state atomic.Pointer[fileState]
}

// fileState is what is known of the file. It is replaced and never changed.
type fileState struct {
	table  *userTable // the version in use
	stamp  stamp      // of that version
	young  bool       // it had not rested when it was read: it will be read once more
	looked time.Time
	// doubt is why somebody who is not in table may exist all the same: a version that rests, one that is broken.
	doubt   error
	gone    bool      // doubt holds for everybody
	broken  bool      // doubt is for Err and the log
	next    stamp     // the version that doubt is about
	since   time.Time // when next was seen first
	refused bool      // next has been read and will not get better by reading it again
}

// NewPasswdFile reads the file. Mistakes in it are *FileError, joined if there are several.
func NewPasswdFile(path string, opts PasswdFileOptions) (*PasswdFile, error) {
	if opts.Interval <= 0 {
		opts.Interval = time.Second
	}
	if opts.MaxSize <= 0 {
		opts.MaxSize = 64 << 20
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	p := &PasswdFile{path: path, name: "passwd-file " + path, opts: opts}
	if err := p.Reload(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *PasswdFile) String() string { return p.name }

// Len is the number of users in the version in use.
func (p *PasswdFile) Len() int { return len(p.state.Load().table.users) }

// Err says what is wrong with the file as it was last seen, or nil. While it says something, an older version is in use or
// none at all.
func (p *PasswdFile) Err() error {
	if s := p.state.Load(); s.broken {
		return s.doubt
	}
	return nil
}

// Lookup finds the entry of an address: local@domain before local. Found users cost a map lookup and no allocation.
func (p *PasswdFile) Lookup(_ context.Context, a Address) (*User, error) {
	s := p.state.Load()
	fresh := false
	if age := p.opts.Clock().Sub(s.looked); (age >= p.opts.Interval || age < 0) && p.mu.TryLock() {
		// Whoever finds the lock taken uses the version at hand: a big file being read delays nobody.
		s, fresh = p.look(), true
		p.mu.Unlock()
	}
	r := s.table.find(a, p.opts.ExactDomain)
	if (r == nil || r.disabled) && !fresh {
		p.mu.Lock()
		s = p.look()
		p.mu.Unlock()
		r = s.table.find(a, p.opts.ExactDomain)
	}
	switch {
	case s.gone:
		return nil, s.doubt
	case (r == nil || r.disabled) && s.doubt != nil:
		return nil, fmt.Errorf("%s has no mailbox in the version of %s in use, but there is another: %w", a.shown(), p.path, s.doubt)
	case r == nil && !s.table.domains[a.Domain] && (p.opts.ExactDomain || !s.table.domains[""]):
		return nil, fmt.Errorf("%s: %w", a.shown(), ErrNoSuchDomain)
	case r == nil:
		return nil, fmt.Errorf("%s: %w", a.shown(), ErrNoSuchUser)
	case r.disabled:
		return nil, fmt.Errorf("%s: %w (%s:%d)", a.shown(), ErrDisabled, p.path, r.line)
	}
	return &r.user, nil
}

// Reload reads the file now, rested or not. If it cannot be used, Reload says why and the version before it stays.
func (p *PasswdFile) Reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	table, st, err := readUserFile(p.path, p.opts.MaxSize, p.opts.FoldCase)
	for range 2 {
		if !errors.Is(err, errChanging) {
			break
		}
		table, st, err = readUserFile(p.path, p.opts.MaxSize, p.opts.FoldCase)
	}
	if err != nil {
		if p.state.Load() != nil {
			p.fail(st, err)
		}
		return err
	}
	p.use(table, st, !p.rested(st, p.opts.Clock()))
	return nil
}

// look compares the file with what is known of it, and reads it if that is due. The caller holds mu.
func (p *PasswdFile) look() *fileState {
	s, now := p.state.Load(), p.opts.Clock()
	st, err := statUserFile(p.path)
	if err != nil {
		return p.fail(st, err)
	}
	if st == s.stamp && !s.young {
		if s.broken {
			p.opts.Logger.Info("user file is as before", "path", p.path, "users", len(s.table.users))
		}
		return p.set(fileState{table: s.table, stamp: s.stamp})
	}
	if st == s.next && s.refused {
		again := *s
		return p.set(again)
	}
	if !p.rested(st, now) && !(st == s.next && now.Sub(s.since) >= p.opts.Interval) {
		if st == s.stamp { // in use, and young
			return p.set(fileState{table: s.table, stamp: st, young: true})
		}
		return p.wait(st, errors.New("it changed a moment ago and may be half written"))
	}
	table, got, err := readUserFile(p.path, p.opts.MaxSize, p.opts.FoldCase)
	switch {
	case errors.Is(err, errChanging):
		return p.wait(got, err)
	case err != nil:
		return p.fail(got, err)
	case len(table.users) == 0 && len(s.table.users) > 0:
		// What "truncate, then write" looks like when the writer is slow or has run out of disk.
		return p.fail(got, &FileError{File: p.path, What: fmt.Sprintf("no user is left of %d", len(s.table.users)),
			Remedy: "if that is meant, reload or restart"})
	}
	return p.use(table, got, false)
}

// rested says whether the file has been left alone long enough that nobody is still writing it.
func (p *PasswdFile) rested(st stamp, now time.Time) bool {
	return now.Sub(time.Unix(0, st.mtime)) >= p.opts.Interval
}

func (p *PasswdFile) set(s fileState) *fileState {
	s.looked = p.opts.Clock()
	p.state.Store(&s)
	return &s
}

// use takes a version into use.
func (p *PasswdFile) use(t *userTable, st stamp, young bool) *fileState {
	for _, r := range t.users {
		r.user.Source = p.name
	}
	if old := p.state.Load(); old == nil || old.stamp != st || old.broken {
		p.opts.Logger.Info("user file read", "path", p.path, "users", len(t.users))
	}
	return p.set(fileState{table: t, stamp: st, young: young})
}

// wait notes a version that is not to be read yet.
func (p *PasswdFile) wait(st stamp, why error) *fileState {
	s := p.state.Load()
	n := fileState{table: s.table, stamp: s.stamp, young: s.young, next: st, since: p.opts.Clock()}
	n.doubt = fmt.Errorf("%s: %w", p.path, why)
	if st == s.next {
		n.since = s.since
	}
	return p.set(n)
}

// fail notes a version that cannot be used. Each reason is logged once.
func (p *PasswdFile) fail(st stamp, err error) *fileState {
	s := p.state.Load()
	n := fileState{table: s.table, stamp: s.stamp, young: s.young, doubt: err, broken: true, gone: isGone(err), next: st, since: p.opts.Clock()}
	_, n.refused = errors.AsType[*FileError](err)
	if !s.broken || s.doubt.Error() != err.Error() {
		msg := "user file is broken, the version before it stays in use"
		if n.gone {
			msg = "user file is gone, all lookups in it fail"
		}
		p.opts.Logger.Error(msg, "path", p.path, "users", len(s.table.users), "error", err)
	}
	return p.set(n)
}
