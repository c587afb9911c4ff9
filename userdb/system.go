package userdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// System is the login accounts of this machine, whatever name service (NSS) they come from. The zero value works; fields
// must not be changed after the first Lookup.
//
// A static program cannot load NSS modules, so System asks somebody who can: systemd's user database if its socket exists,
// else getent(1), else it reads /etc/passwd itself. Where the one that should be asked fails, the next one is not tried: it
// might know fewer accounts.
//
// Accounts below MinUID, root and nobody have no mailbox (ErrNoSuchUser). The login shell does not matter. A record that
// cannot be used (relative home, group 0) is an ErrBadRecord.
//
// Neither getent nor systemd can say "not found" apart from "not found, and the directory server is down". So where
// nsswitch.conf names a source that may be remote (ldap, sss, winbind, nis and all that are not known to be local), "not
// found" is believed only if KnownUser is found in the same breath, and is a temporary error otherwise. TrustNSS takes
// sources out of this.
type System struct {
	MinUID    uint32        // accounts below it get no mail; 0: 1000
	KnownUser string        // an account that only the remote name service knows
	TrustNSS  []string      // NSS sources whose "not found" is always believed
	Timeout   time.Duration // for one Lookup; 0: 10 seconds
	Parallel  int           // lookups at once, each may be a process; 0: 8

	Socket     string // systemd's user database; "": /run/systemd/userdb/io.systemd.Multiplexer
	Getent     string // absolute path of getent; "": the one in PATH
	PasswdFile string // "": /etc/passwd
	GroupFile  string // "": /etc/group
	NSSwitch   string // "": /etc/nsswitch.conf

	once  sync.Once
	slots chan struct{}
}

// account is a record as a source gives it.
type account struct {
	name     string
	uid, gid uint32
	home     string
}

// accountSource is one way to the accounts. account returns nil without an error for a name that the source does not find.
type accountSource interface {
	account(ctx context.Context, name string) (*account, error)
	groups(ctx context.Context, name string) ([]uint32, error)
	nss() bool // it goes through NSS, so that "not found" may be a server that is down
}

// uidNobody is the kernel's overflow uid: files of it belong to no account.
const uidNobody = 65534

func (s *System) String() string { return "system" }

// Lookup finds the account whose name is the address's local part. The domain is not looked at: Chain does that.
func (s *System) Lookup(ctx context.Context, a Address) (*User, error) {
	noSuch := func(why string) (*User, error) {
		return nil, fmt.Errorf("system: %s: %w%s", a.shown(), ErrNoSuchUser, why)
	}
	if !possibleLogin(a.Local) {
		return noSuch(" (no account can have this name)")
	}
	s.once.Do(func() { s.slots = make(chan struct{}, orDefault(s.Parallel, 8)) })
	ctx, cancel := context.WithTimeout(ctx, orDefault(s.Timeout, 10*time.Second))
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("system: %s: all %d lookups are taken: %w", a.shown(), cap(s.slots), context.Cause(ctx))
	}

	src := s.source(a.Local)
	acc, err := src.account(ctx, a.Local)
	if err == nil && acc == nil {
		if err = s.believe(ctx, src); err == nil {
			return noSuch("")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("system: %s: %w", a.shown(), err)
	}
	switch {
	case noMailbox(acc.uid):
		return noSuch(fmt.Sprintf(" (uid %d gets no mail)", acc.uid))
	case acc.uid < orDefault(s.MinUID, 1000):
		return noSuch(fmt.Sprintf(" (uid %d is below the minimum of %d)", acc.uid, orDefault(s.MinUID, 1000)))
	case acc.gid == 0 || acc.gid == noID:
		return nil, fmt.Errorf("system: %s: %w: its group is %d; give the account a group of its own", a.shown(), ErrBadRecord, acc.gid)
	case acc.home != "" && !filepath.IsAbs(acc.home):
		return nil, fmt.Errorf("system: %s: %w: its home %+q is not absolute; correct it with usermod", a.shown(), ErrBadRecord, clip(acc.home))
	}
	groups, err := src.groups(ctx, acc.name)
	if err != nil {
		return nil, fmt.Errorf("system: groups of %s: %w", a.shown(), err)
	}
	slices.Sort(groups)
	groups = slices.DeleteFunc(slices.Compact(groups), func(g uint32) bool { return g == 0 || g == acc.gid || g == noID })
	return &User{
		Name:   acc.name,
		Owner:  &Owner{UID: acc.uid, GID: acc.gid, Groups: groups},
		Home:   acc.home,
		Source: s.String(),
	}, nil
}

// noMailbox says whether a uid is one that no mail is ever written as.
func noMailbox(uid uint32) bool {
	return uid == 0 || uid == uidNobody || uid == 1<<16-1 || uid == noID
}

// mailless says whether Lookup finds no mailbox for an account.
func (s *System) mailless(acc *account) bool {
	return noMailbox(acc.uid) || acc.uid < orDefault(s.MinUID, 1000)
}

// source chooses whom to ask for a name.
func (s *System) source(name string) accountSource {
	file := etcFiles{orDefault(s.PasswdFile, "/etc/passwd"), orDefault(s.GroupFile, "/etc/group")}
	if looksNumeric(name) {
		// getent would look for the uid, and systemd has no such names.
		return file
	}
	socket := orDefault(s.Socket, "/run/systemd/userdb/io.systemd.Multiplexer")
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		return userdbd{socket} // any other error is one that connecting will report
	}
	getent := s.Getent
	if getent == "" {
		getent, _ = exec.LookPath("getent")
	}
	if filepath.IsAbs(getent) { // a getent that is configured and missing is an error, not a reason to go on
		return getentCmd{getent}
	}
	return file
}

// localNSS are the sources that answer from this machine. files: glibc and musl; extrausers, altfiles, db, compat: other
// files; systemd, mymachines: systemd's own accounts.
var localNSS = []string{"files", "compat", "db", "extrausers", "altfiles", "systemd", "mymachines"}

// believe returns nil if "not found" from the source means that there is no such account.
func (s *System) believe(ctx context.Context, src accountSource) error {
	if !src.nss() {
		return nil
	}
	path := orDefault(s.NSSwitch, "/etc/nsswitch.conf")
	data, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // without it there are files only
	}
	if err != nil {
		return err
	}
	remote := remoteNSS(string(data), s.TrustNSS)
	if len(remote) == 0 {
		return nil
	}
	if s.KnownUser == "" {
		return fmt.Errorf("not found, but name service %s (%s) may be down; name an account that it always knows as known user, or trust it",
			strings.Join(remote, ", "), path)
	}
	acc, err := src.account(ctx, s.KnownUser)
	if err == nil && acc == nil {
		err = fmt.Errorf("not found, and neither is the known user %+q: name service %s seems to be down", s.KnownUser, strings.Join(remote, ", "))
	}
	return err
}

// remoteNSS lists the sources of passwd in the text of nsswitch.conf(5) that are neither local nor trusted.
func remoteNSS(text string, trusted []string) []string {
	var remote []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		db, sources, _ := strings.Cut(line, ":")
		if db = strings.TrimSpace(db); db != "passwd" && db != "passwd_compat" {
			continue
		}
		action := false // inside [NOTFOUND=return]
		for _, f := range strings.Fields(strings.NewReplacer("[", " [ ", "]", " ] ").Replace(sources)) {
			switch {
			case f == "[":
				action = true
			case f == "]":
				action = false
			case !action && !slices.Contains(localNSS, f) && !slices.Contains(trusted, f):
				remote = append(remote, f)
			}
		}
	}
	return remote
}

// possibleLogin refuses what no account's name can be, so that it reaches neither a command line nor a service: the fields
// of passwd are separated by colons, and names stand for a home's last component.
func possibleLogin(name string) bool {
	if name == "" || name == "." || name == ".." || badText("name", name) != "" || strings.TrimSpace(name) != name {
		return false
	}
	return !strings.ContainsAny(name, ":/\n\x00")
}

// looksNumeric says whether strtoul(3) takes all of the name, which is how getent tells a uid from a name; or whether
// systemd refuses to be asked for it for that reason (signs and digits, or "-").
func looksNumeric(name string) bool {
	if name == "-" {
		return true
	}
	digits := strings.TrimLeft(name, " \t+-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

// orDefault gives fields whose zero value stands for a default.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
