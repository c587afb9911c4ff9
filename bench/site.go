package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// owner is the account that mail belongs to.
type owner struct{ uid, gid int }

// mailUser owns all mail where there is one mail user. The account need not exist.
var mailUser = owner{5000, 5000}

// firstUID is the account of the first user where each owns his mail.
const firstUID = 20000

// site is a directory with the homes of all users, made anew for each measurement.
type site struct {
	dir     string
	perUser bool // each user has an account of his own
	root    bool // we may give files away
}

// newSite makes the homes of all users, each with an empty Maildir.
func newSite(dir string, perUser, root bool) (*site, error) {
	s := &site{dir: dir, perUser: perUser, root: root}
	for _, d := range []string{dir, s.path("home"), s.path("run")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.give(s.path("run"), mailUser); err != nil {
		return nil, err
	}
	for i := range users {
		for _, d := range []string{s.home(i), s.maildir(i), s.maildir(i) + "/cur", s.maildir(i) + "/tmp", s.maildir(i) + "/new"} {
			if err := os.Mkdir(d, 0o700); err != nil {
				return nil, err
			}
			if err := s.give(d, s.owner(i)); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

func (s *site) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *site) home(i int) string    { return s.path("home", userName(i)) }
func (s *site) maildir(i int) string { return s.path("home", userName(i), "Maildir") }

func (s *site) owner(i int) owner {
	if s.perUser {
		return owner{firstUID + i, firstUID + i}
	}
	return mailUser
}

func (s *site) give(path string, o owner) error {
	if !s.root {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// write makes a file of the site.
func (s *site) write(name, content string) (string, error) {
	path := s.path(name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}

// passwd is the table of users, in the format that Dovecot and lmtpd share.
// Without ids where the server runs as the mail user.
func (s *site) passwd(ids bool) string {
	var b strings.Builder
	for i := range users {
		id := ":"
		if o := s.owner(i); ids {
			id = fmt.Sprintf("%d:%d", o.uid, o.gid)
		}
		fmt.Fprintf(&b, "%s::%s::%s::\n", userAddress(i), id, s.home(i))
	}
	return b.String()
}

// verify compares what is in new/ of all users with what was acknowledged.
func (s *site) verify(acks []ack) error {
	type copyOf struct {
		user int
		id   uint64
	}
	type found struct {
		size   int64
		copies int
	}
	due := make(map[copyOf]*found, len(acks))
	for _, a := range acks {
		if due[copyOf{a.user, a.id}] != nil {
			return fmt.Errorf("message %x was acknowledged twice for %s", a.id, userName(a.user))
		}
		due[copyOf{a.user, a.id}] = &found{size: a.size}
	}
	unknown := 0
	for user := range users {
		dir := filepath.Join(s.maildir(user), "new")
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			id, size, err := readID(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			f := due[copyOf{user, id}]
			if f == nil {
				unknown++
				continue
			}
			if f.copies++; size < f.size {
				return fmt.Errorf("%s/%s has %d octets, its message %d", dir, e.Name(), size, f.size)
			}
		}
	}
	var missing, twice int
	for _, f := range due {
		switch {
		case f.copies == 0:
			missing++
		case f.copies > 1:
			twice++
		}
	}
	if missing+twice+unknown > 0 {
		return fmt.Errorf("of %d acknowledged deliveries %d are not in new/ and %d are there more than once; %d files there were never acknowledged",
			len(acks), missing, twice, unknown)
	}
	return nil
}

// readID gives the number of the message in a file, and the file's size.
func readID(path string) (id uint64, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	head := make([]byte, 4<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	id, err = findID(head[:n])
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return id, info.Size(), nil
}
