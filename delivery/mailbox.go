package delivery

import (
	"fmt"
	"path"
	"strings"

	"github.com/lmtpd/lmtpd/userdb"
)

// Location says where a mailbox is: a path with "~" for the home of the user
// record and, in any component, %u for the user's name, %n for its local part,
// %d for its domain (of an address without one: this host's name) and %% for a
// percent sign.
// The directory before the first component that varies must exist at delivery,
// since it may be a mount point that is not mounted; what lies below it is
// created.
type Location struct {
	text  string
	home  bool   // root is the home of the record
	root  string // else: absolute
	parts []string
}

// LocationError is what is wrong with the text of a Location, and what would be right.
type LocationError struct{ Text, Problem, Remedy string }

func (e *LocationError) Error() string {
	return fmt.Sprintf("%q %s; %s", e.Text, e.Problem, e.Remedy)
}

// ParseLocation reads a Location: "~/Maildir", "/var/mail/%d/%n". Errors are
// *LocationError.
func ParseLocation(s string) (Location, error) {
	l := Location{text: s}
	fail := func(problem, remedy string) (Location, error) {
		return Location{}, &LocationError{s, problem, remedy}
	}
	rest, isHome := strings.CutPrefix(s, "~/")
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fail("has a control character", "remove it")
	case strings.Trim(rest, "/.") == "" && !strings.Contains(rest, ".."), !isHome && s[0] != '/':
		return fail("is neither below the home nor absolute", `begin it with "~/" or "/", such as "~/Maildir" or "/var/mail/%d/%n"`)
	}
	l.home = isHome
	for _, c := range strings.Split(rest, "/") {
		switch {
		case c == "" || c == ".":
			continue
		case c == "..":
			return fail(`has a ".." in it`, "write the directory that is meant")
		case c[0] == '~':
			return fail(`has a "~" that is not at its beginning`, `"~/" at the beginning is the home`)
		}
		l.parts = append(l.parts, c)
	}
	if bad := unknownVariable(rest); bad == "%" {
		return fail("ends in %", "write %% for a percent sign")
	} else if bad != "" {
		return fail(fmt.Sprintf("has %q, which is no variable", bad), "write %u (user), %n (local part), %d (domain) or %% (a percent sign)")
	}
	if !l.home {
		// A path that does not vary has its parent for a root.
		fixed := 0
		for fixed < len(l.parts)-1 && !strings.Contains(l.parts[fixed], "%") {
			fixed++
		}
		l.root = "/" + path.Join(l.parts[:fixed]...)
		l.parts = l.parts[fixed:]
	}
	return l, nil
}

// unknownVariable is the first that cannot be expanded, or "".
func unknownVariable(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		i++
		if i == len(s) || !strings.Contains("und%", s[i:i+1]) {
			return s[i-1 : min(i+1, len(s))]
		}
	}
	return ""
}

// String gives the text that was parsed.
func (l Location) String() string { return l.text }

// Varies reports whether users get different mailboxes.
func (l Location) Varies() bool {
	return l.home || strings.Contains(strings.ReplaceAll(l.text, "%%", ""), "%")
}

// locate gives the root, which must exist, and the Maildir below it. The record's
// own mailbox comes first. Its errors are userdb.ErrBadRecord: the user exists,
// and the administrator has to mend what is said about him.
func (l Location) locate(user *userdb.User, addr userdb.Address, hostname string) (root, rel string, err error) {
	if user.Mail != "" {
		if l, err = ParseLocation(user.Mail); err != nil {
			return "", "", fmt.Errorf("%w: user %q of %s: mail location: %w", userdb.ErrBadRecord, user.Name, user.Source, err)
		}
	}
	root = l.root
	if l.home {
		if user.Home == "" {
			return "", "", fmt.Errorf("%w: user %q of %s has no home, which %s needs", userdb.ErrBadRecord, user.Name, user.Source, l.text)
		}
		root = user.Home
	}
	if addr.Domain == "" {
		addr.Domain = hostname
	}
	parts := make([]string, len(l.parts))
	for i, p := range l.parts {
		if parts[i], err = expand(p, user, addr); err != nil {
			return "", "", fmt.Errorf("%w: user %q of %s: mailbox %s: %w", userdb.ErrBadRecord, user.Name, user.Source, l.text, err)
		}
	}
	return root, path.Join(parts...), nil
}

// expand puts the variables into one component of a path. It is the one place
// where an address becomes part of a path, and each value passes PathComponent.
func expand(part string, user *userdb.User, addr userdb.Address) (string, error) {
	if !strings.Contains(part, "%") {
		return part, nil
	}
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] != '%' {
			b.WriteByte(part[i])
			continue
		}
		i++
		if part[i] == '%' {
			b.WriteByte('%')
			continue
		}
		v, err := userdb.PathComponent(variable(part[i], user, addr))
		if err != nil {
			return "", fmt.Errorf("%%%c: %w", part[i], err)
		}
		b.WriteString(v)
	}
	if b.Len() > maxComponent {
		return "", fmt.Errorf("name of a directory has %d octets, at most %d are allowed", b.Len(), maxComponent)
	}
	return b.String(), nil
}

// maxComponent is what one name may have in octets on every common file system.
const maxComponent = 255

func variable(name byte, user *userdb.User, addr userdb.Address) string {
	local, domain := user.Name, addr.Domain
	if i := strings.LastIndexByte(user.Name, '@'); i >= 0 {
		local, domain = user.Name[:i], user.Name[i+1:]
	}
	switch name {
	case 'n':
		return local
	case 'd':
		return domain
	}
	return user.Name
}
