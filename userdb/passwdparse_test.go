package userdb

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParsePasswd(t *testing.T) {
	owner := &Owner{UID: 1001, GID: 1002}
	for _, c := range []struct {
		line string
		want User
	}{
		{"bob", User{Name: "bob"}},
		{"bob:", User{Name: "bob"}},
		{"bob:{PLAIN}pass", User{Name: "bob"}},
		{"bob::::", User{Name: "bob"}},
		{"bob:x:1001:1002:Bob Gecos,,,:/home/bob:/bin/sh", User{Name: "bob", Owner: owner, Home: "/home/bob"}},
		{"bob@Example.ORG:x:1001:1002::/home/bob::", User{Name: "bob@example.org", Owner: owner, Home: "/home/bob"}},
		{"Bob:x:::caf\xe9:/home/Bob", User{Name: "bob", Home: "/home/Bob"}},
		{"bob:x:::::/bin/sh:userdb_quota_rule=*:storage=1G userdb_x nologin allow_nets=::1/128,2001:db8::/32 userdb_ip=2001:db8::1",
			User{Name: "bob", Extra: map[string]string{"quota_rule": "*:storage=1G", "x": "yes", "ip": "2001:db8::1"}}},
		{"bob:x:::::: userdb_mail=maildir:~/Maildir:LAYOUT=fs  userdb_y=", User{Name: "bob", Mail: "~/Maildir", Extra: map[string]string{"y": ""}}},
		{"bob:x::::::userdb_mail_driver=maildir userdb_mail_path=/srv/%d/%n", User{Name: "bob", Mail: "/srv/%d/%n"}},
		{"bob:x:::::::maildir:/srv/bob", User{Name: "bob", Mail: "/srv/bob"}}, // Dovecot's old format
		{"bob:x:5:6::/a::userdb_uid=1001 userdb_gid=1002 userdb_home=/home/b", User{Name: "bob", Owner: owner, Home: "/home/b"}},
		{"a@b@example.org:x", User{Name: "a@b@example.org"}},
		{"o'brien+x:x", User{Name: "o'brien+x"}},
		{"jürgen:x", User{Name: "jürgen"}},
		{"bob:x::::::proxy host=10.0.0.1 port=24 destuser=robert nologin", // Dovecot's proxy
			User{Name: "bob", Extra: map[string]string{"proxy": "yes", "host": "10.0.0.1", "port": "24", "destuser": "robert"}}},
		{"bob:x::::::host=10.0.0.1 proxy_maybe=y userdb_host=10.0.0.2", User{Name: "bob", Extra: map[string]string{"proxy_maybe": "y", "host": "10.0.0.2"}}},
		{"bob:x::::::host=10.0.0.1 port=24", User{Name: "bob"}}, // where clients are told to log in
		{"bob:x::::::userdb_disabled=no", User{Name: "bob"}},
		{"bob\r", User{Name: "bob"}},
	} {
		text := "# comment\n\n \t\n#bob\n" + c.line + "\n"
		for _, in := range []string{text, strings.ReplaceAll(text, "\n", "\r\n"), "\ufeff" + text} {
			table, err := parsePasswd("users", []byte(strings.ReplaceAll(in, "\r\r", "\r")), true)
			if err != nil || len(table.users) != 1 {
				t.Errorf("%q: %+v, %v", in, table, err)
				continue
			}
			for _, r := range table.users {
				if !reflect.DeepEqual(r.user, c.want) || r.disabled || r.line != 5 {
					t.Errorf("%q: line %d: %+v, want %+v", in, r.line, r.user, c.want)
				}
			}
		}
	}
}

// TestPasswdMistakes compares every message with testdata/mistakes: a line of a user file, then what is said about it.
func TestPasswdMistakes(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "mistakes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n\n") {
		in, want, ok := strings.Cut(block, "\n=> ")
		if !ok {
			t.Fatalf("no => in %q", block)
		}
		n++
		in = strings.NewReplacer(`\0`, "\x00", `\r`, "\r", `\xff`, "\xff", "LONG", strings.Repeat("x", 300)).Replace(in)
		_, err := parsePasswd("users", []byte("good:x\n"+in+"\n"), true)
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %v", in, err, want)
		}
	}
	if n < 25 {
		t.Errorf("only %d mistakes in the file", n)
	}
}

func TestPasswdManyMistakes(t *testing.T) {
	_, err := parsePasswd("users", []byte(strings.Repeat("bob:x:1\n", 50)), true)
	all, ok := err.(interface{ Unwrap() []error })
	if !ok || len(all.Unwrap()) != maxFileErrors {
		t.Fatalf("%v", err)
	}
	for i, e := range all.Unwrap() {
		if fe, ok := errors.AsType[*FileError](e); !ok || fe.Line != i+1 || fe.File != "users" {
			t.Errorf("mistake %d: %v", i, e)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the text has more than one line: %v", err)
	}
}

func TestPasswdCutShort(t *testing.T) {
	whole := "bob:x:1001:1002:Bob:/home/bob:/bin/sh:userdb_x=y\nann:x:1003:1003:Ann:/home/ann:/bin/sh\n"
	for n := 1; n < len(whole); n++ {
		if n == strings.Index(whole, "\n")+1 {
			continue // nothing can tell; that is why a changed file has to rest
		}
		if _, err := parsePasswd("users", []byte(whole[:n]), true); err == nil || !strings.Contains(err.Error(), "half written") {
			t.Errorf("the first %d octets: %v", n, err)
		}
	}
}

// FuzzParsePasswd: never a panic; what is accepted keeps the promises of User; passwords stay out of messages.
func FuzzParsePasswd(f *testing.F) {
	f.Add("bob:x:1001:1002::/home/bob::userdb_mail=maildir:~/Maildir\n", true)
	f.Add("# c\r\n\r\nbob@d:x\r\n", false)
	f.Add("bob:x\nbob:x\n", true)
	f.Add("bob:x::::::userdb_uid=0 userdb_gid=0 userdb_home=x\n", true)
	f.Add("bob:x:::::::maildir:/x\n", true)
	f.Add("\ufeffbob", true)
	f.Fuzz(func(t *testing.T, in string, fold bool) {
		table, err := parsePasswd("users", []byte(in), fold)
		if err != nil {
			if _, ok := errors.AsType[*FileError](err); !ok || strings.ContainsAny(err.Error(), "\x00\r\n") {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		for k, r := range table.users {
			u := r.user
			if k.local == "" || u.Name != join(k.local, k.domain) || r.line < 1 || r.line > strings.Count(in, "\n") {
				t.Fatalf("%q: %+v on line %d", in, u, r.line)
			}
			if u.Home != "" && !filepath.IsAbs(u.Home) || strings.ContainsAny(u.Home+u.Mail, "\x00\n") {
				t.Fatalf("%q: %+v", in, u)
			}
			if o := u.Owner; o != nil && (o.UID == 0 || o.GID == 0 || o.UID == noID || o.GID == noID) {
				t.Fatalf("%q: %+v", in, *o)
			}
			if got := table.find(Address{Local: k.local, Domain: k.domain}, true); got != r {
				t.Fatalf("%q: %+v does not find itself", in, k)
			}
			if !table.domains[k.domain] {
				t.Fatalf("%q: domain %q is not listed", in, k.domain)
			}
		}
	})
}
