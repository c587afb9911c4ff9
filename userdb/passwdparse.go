package userdb

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
)

// maxFileErrors bounds how many mistakes of one file are reported together.
const maxFileErrors = 10

// FileError is one mistake in a user file. An error that stands for several has Unwrap() []error; errors.As finds the first.
type FileError struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	What   string // what is wrong; never holds a password
	Remedy string // what to do about it
}

// Error has the form file:line: what; remedy.
func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s; %s", e.File, e.What, e.Remedy)
	}
	return fmt.Sprintf("%s:%d: %s; %s", e.File, e.Line, e.What, e.Remedy)
}

// fileErrors are all mistakes of a file, at least one. Its text is one line, for logs.
type fileErrors []error

func (e fileErrors) Unwrap() []error { return e }

func (e fileErrors) Error() string {
	switch more := len(e) - 1; more {
	case 0:
		return e[0].Error()
	case 1:
		return e[0].Error() + " (and one more mistake)"
	default:
		return fmt.Sprintf("%s (and %d more mistakes)", e[0], more)
	}
}

// userKey is a name of the file. Local part and domain stay apart, so that the quoted local part "a@b" of an address
// cannot pass for the entry a@b.
type userKey struct{ local, domain string }

type userRecord struct {
	user     User
	line     int
	disabled bool
}

// userTable is one version of a user file. It is not changed once it is built.
type userTable struct {
	users   map[userKey]*userRecord
	domains map[string]bool // domains that names have; "" if any has none
}

// find gives the record of an address: that of its domain before the one without.
func (t *userTable) find(a Address, exactDomain bool) *userRecord {
	if r := t.users[userKey{a.Local, a.Domain}]; r != nil || exactDomain || a.Domain == "" {
		return r
	}
	return t.users[userKey{a.Local, ""}]
}

// parsePasswd reads a whole user file. It is strict: a line that is skipped would be a user whose mail bounces.
func parsePasswd(file string, data []byte, fold bool) (*userTable, error) {
	t := &userTable{users: map[userKey]*userRecord{}, domains: map[string]bool{}}
	var errs fileErrors
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // editors on Windows put a byte order mark there
	for n := 1; len(data) > 0 && len(errs) < maxFileErrors; n++ {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		data = rest
		what, remedy := "the last line has no newline at its end, so the file may be half written", "add one"
		if ended {
			what, remedy = t.add(string(bytes.TrimSuffix(line, []byte("\r"))), n, fold)
		}
		if what != "" {
			errs = append(errs, &FileError{file, n, what, remedy})
		}
	}
	if errs != nil {
		return nil, errs
	}
	return t, nil
}

// add takes one line in. It returns what is wrong with it and the remedy, or "".
func (t *userTable) add(line string, n int, fold bool) (what, remedy string) {
	if strings.TrimSpace(line) == "" || line[0] == '#' {
		return "", ""
	}
	for i := 0; i < len(line); i++ {
		if c := line[i]; c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("control octet 0x%02x at octet %d", c, i+1), "remove it"
		}
	}
	// user:password:uid:gid:gecos:home:shell:extra; extra may hold colons itself.
	var f [8]string
	copy(f[:], strings.SplitN(line, ":", len(f)))

	key, what, remedy := parseUserName(f[0], fold)
	if what != "" {
		return what, remedy
	}
	if old := t.users[key]; old != nil {
		return fmt.Sprintf("user %+q is on line %d already", clip(f[0]), old.line), "remove one of the two"
	}
	r := &userRecord{line: n}
	// Clones, because the line holds a password that should not live as long as the table.
	key = userKey{strings.Clone(key.local), strings.Clone(key.domain)}
	r.user.Name = join(key.local, key.domain)

	uid, gid, home := f[2], f[3], f[5]
	fields := userFields(f[7])
	for name, to := range map[string]*string{"uid": &uid, "gid": &gid, "home": &home} {
		if v, ok := fields[name]; ok { // as in Dovecot, the extra field wins
			*to = v
			delete(fields, name)
		}
	}
	if r.user.Owner, what, remedy = parseOwner(uid, gid); what != "" {
		return what, remedy
	}
	if home != "" && !filepath.IsAbs(home) {
		return fmt.Sprintf("home %+q is not absolute", clip(home)), "write the whole path, beginning with /"
	}
	r.user.Home = strings.Clone(home)
	if what, remedy = r.takeMail(fields); what != "" {
		return what, remedy
	}
	if len(fields) > 0 {
		r.user.Extra = make(map[string]string, len(fields))
		for k, v := range maps.All(fields) {
			r.user.Extra[strings.Clone(k)] = strings.Clone(v)
		}
	}
	t.users[key] = r
	t.domains[key.domain] = true
	return "", ""
}

// parseUserName reads the first field. Names are not quoted: the domain begins after the last @.
func parseUserName(s string, fold bool) (key userKey, what, remedy string) {
	bad := func(why, remedy string) (userKey, string, string) {
		return userKey{}, fmt.Sprintf("user name %+q: %s", clip(s), why), remedy
	}
	local, domain := s, ""
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if local, domain = s[:i], s[i+1:]; domain == "" {
			return bad("domain is empty", "write user or user@domain")
		}
	}
	if strings.TrimSpace(local) != local {
		return bad("white space at its start or end", "remove it; a comment begins with # in the first column")
	}
	if why := badLocal(local); why != "" {
		return bad(why, "write user or user@domain")
	}
	d, why := cleanDomain(domain)
	if why != "" {
		return bad(why, "write user or user@domain")
	}
	return userKey{Rules{FoldCase: fold}.fold(local), d}, "", ""
}

// parseOwner reads uid and gid; both empty is a user who owns no account.
func parseOwner(uid, gid string) (o *Owner, what, remedy string) {
	if uid == "" && gid == "" {
		return nil, "", ""
	}
	if uid == "" || gid == "" {
		return nil, "only one of uid and gid is given", "give both, or neither if the mail belongs to the daemon's own user"
	}
	u, what, remedy := parseID("uid", uid)
	if what != "" {
		return nil, what, remedy
	}
	g, what, remedy := parseID("gid", gid)
	if what != "" {
		return nil, what, remedy
	}
	return &Owner{UID: u, GID: g}, "", ""
}

func parseID(kind, s string) (id uint32, what, remedy string) {
	n, err := strconv.ParseUint(s, 10, 32)
	switch {
	case err != nil || s[0] == '+':
		return 0, fmt.Sprintf("%s %+q is not a number from 1 to %d", kind, clip(s), uint32(noID-1)),
			"write the number that the id command prints"
	case n == 0:
		return 0, kind + " 0 owns no mail", "give the mail to an account that is not root's"
	case n == noID:
		return 0, fmt.Sprintf("%s %d means nobody at all", kind, n), "write the number that the id command prints"
	}
	return uint32(n), "", ""
}

// userFields reads the extra fields and keeps those meant for mail: userdb_NAME=VALUE, without the prefix, and those
// that send it to another host.
func userFields(extra string) map[string]string {
	fields := map[string]string{}
	if old, ok := strings.CutPrefix(extra, ":"); ok && strings.TrimSpace(old) != "" {
		fields["mail"] = old // Dovecot's old format: an empty field, then the mail location
		return fields
	}
	var proxy map[string]string
	for _, f := range strings.Fields(extra) {
		name, value, hasValue := strings.Cut(f, "=")
		name, ours := strings.CutPrefix(name, "userdb_")
		if !ours && proxyFields[name] {
			if proxy == nil {
				proxy = map[string]string{}
			}
			proxy[name] = value
			if !hasValue {
				proxy[name] = "yes"
			}
			continue
		}
		if !ours || name == "" {
			continue // a field for logging in
		}
		if !hasValue {
			value = "yes"
		}
		fields[name] = value
	}
	// A host without "proxy" is one that a client is sent to for logging in.
	if proxy["proxy"] != "" || proxy["proxy_maybe"] != "" {
		for name, value := range proxy {
			if _, has := fields[name]; !has {
				fields[name] = value
			}
		}
	}
	return fields
}

// proxyFields are those without userdb_ that Dovecot's LMTP heeds: mail for the user goes to another host.
var proxyFields = map[string]bool{"proxy": true, "proxy_maybe": true, "host": true, "port": true, "destuser": true}

// takeMail moves what the record says about its mailbox out of the fields: mail=maildir:PATH[:options], or as Dovecot 2.4
// writes it mail_driver=maildir and mail_path=PATH; and disabled=yes, which is our own.
func (r *userRecord) takeMail(fields map[string]string) (what, remedy string) {
	mail, path := fields["mail"], fields["mail_path"]
	driver, hasDriver := fields["mail_driver"]
	if mail != "" {
		d, rest, ok := strings.Cut(mail, ":")
		if !ok {
			return fmt.Sprintf("mail location %+q names no format", clip(mail)), "write userdb_mail=maildir:PATH"
		}
		driver, hasDriver = d, true
		p, options, _ := strings.Cut(rest, ":")
		for o := range strings.SplitSeq(options, ":") {
			if strings.HasPrefix(o, "INBOX=") {
				return "mail location has INBOX=", "name the Maildir that is the INBOX itself: userdb_mail=maildir:PATH"
			}
		}
		path = p
	}
	if hasDriver && driver != "maildir" {
		return fmt.Sprintf("mail format %+q", clip(driver)), "only maildir can be delivered to: userdb_mail=maildir:PATH"
	}
	if mail != "" && path == "" {
		return "mail location has no path", "write userdb_mail=maildir:PATH"
	}
	switch v := fields["disabled"]; v {
	case "yes", "y", "true", "1":
		r.disabled = true
	case "", "no", "n", "false", "0":
	default:
		return fmt.Sprintf("userdb_disabled=%+q", clip(v)), "write yes or no"
	}
	r.user.Mail = strings.Clone(path)
	for _, f := range []string{"mail", "mail_path", "mail_driver", "disabled"} {
		delete(fields, f)
	}
	return "", ""
}

// noID is what the kernel takes for "no change" in chown and setuid.
const noID = 1<<32 - 1
