package userdb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// place writes a file of the test and returns its path.
func place(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// nowhere is a path at which there is nothing.
func nowhere(t *testing.T) string { return filepath.Join(t.TempDir(), "nothing") }

// scripted is a System whose getent is a shell script. The script sees "passwd -- NAME" or "initgroups -- NAME".
func scripted(t *testing.T, script string) *System {
	t.Helper()
	return &System{
		Socket:     nowhere(t),
		Getent:     place(t, "getent", "#!/bin/sh\n"+script, 0o700),
		PasswdFile: nowhere(t),
		NSSwitch:   nowhere(t),
	}
}

func ask(t *testing.T, s *System, name string) (*User, error) {
	t.Helper()
	return s.Lookup(t.Context(), Address{Local: name, Domain: "example.org"})
}

const bobScript = `case "$1:$3" in
passwd:bob) echo 'bob:x:2001:2002:Bob,,,:/home/bob:/usr/sbin/nologin' ;;
passwd:*) exit 2 ;;
initgroups:*) echo "$3                   2100 0 27 2100 2002" ;;
esac`

func TestSystemGetent(t *testing.T) {
	u, err := ask(t, scripted(t, bobScript), "bob")
	want := &User{Name: "bob", Owner: &Owner{UID: 2001, GID: 2002, Groups: []uint32{27, 2100}}, Home: "/home/bob", Source: "system"}
	if err != nil || !reflect.DeepEqual(u, want) {
		t.Errorf("%+v, %v; want %+v", u, err, want)
	}
}

// TestSystemAnswers: what a source says about an account, and what becomes of it.
func TestSystemAnswers(t *testing.T) {
	for _, c := range []struct {
		name, script string
		want         error  // nil: temporary
		text         string // in the error
	}{
		{"not found", "exit 2", ErrNoSuchUser, ""},
		{"root", "echo bob:x:0:0:root:/root:/bin/sh", ErrNoSuchUser, "uid 0 gets no mail"},
		{"daemon", "echo bob:x:999:999::/:/bin/sh", ErrNoSuchUser, "uid 999 is below the minimum of 1000"},
		{"nobody", "echo bob:x:65534:65534::/:/bin/sh", ErrNoSuchUser, "uid 65534"},
		{"minus one", "echo bob:x:4294967295:5::/:/bin/sh", ErrNoSuchUser, "uid 4294967295"},
		{"root group", "echo bob:x:2001:0::/home/bob:/bin/sh", ErrBadRecord, "give the account a group of its own"},
		{"relative home", "echo bob:x:2001:2001::home/bob:/bin/sh", ErrBadRecord, `its home "home/bob" is not absolute`},
		{"usage", "exit 1", nil, "exit status 1"},
		{"enumeration", "exit 3", nil, "exit status 3"},
		{"loader", "echo 'cannot open\n shared object' >&2; exit 127", nil, `it said "cannot open\n shared object"`},
		{"killed", "kill -9 $$", nil, "signal: killed"},
		{"silent", "exit 0", nil, "expected one line"},
		{"cut short", "printf bob:x:2001:20", nil, "expected one line"},
		{"cut short, with exit 2", "echo bob:x:2001; exit 2", nil, "exit status 2"},
		{"two lines", "echo bob:x:2001:2001::/b:; echo ann:x:2002:2002::/a:", nil, "expected one line"},
		{"fields", "echo bob:x:2001:2001::/home/bob", nil, "6 fields of 7"},
		{"more fields", "echo bob:x:2001:2001:a:b:/home/bob:/bin/sh", nil, "8 fields of 7"},
		{"no name", "echo :x:2001:2001::/home/bob:", nil, "cut short"},
		{"uid", "echo bob:x:-2:2001::/home/bob:", nil, `uid "-2" is not a number`},
		{"gid", "echo bob:x:2001:4294967296::/home/bob:", nil, "is not a number"},
		{"too long", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", nil, "longer than"},
		{"groups fail", `[ $1 = initgroups ] && exit 1; echo bob:x:2001:2001::/b:`, nil, "groups of bob@example.org"},
		{"groups of another", `[ $1 = initgroups ] && echo ann 5; echo bob:x:2001:2001::/b:`, nil, "is not about"},
		{"groups no number", `[ $1 = initgroups ] && { echo bob x; exit; }; echo bob:x:2001:2001::/b:`, nil, "is not a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := ask(t, scripted(t, c.script), "bob")
			if u != nil || err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%+v, %v; want %q", u, err, c.text)
			}
			if c.want != nil && !errors.Is(err, c.want) || errors.Is(err, ErrNoSuchUser) != (c.want == ErrNoSuchUser) {
				t.Errorf("%v is not what it should be", err)
			}
		})
	}
}

func TestSystemMinUID(t *testing.T) {
	s := scripted(t, "[ $1 = initgroups ] && { echo bob; exit; }; echo bob:x:500:500::/b:")
	s.MinUID = 500
	if u, err := ask(t, s, "bob"); err != nil || u.Owner.UID != 500 {
		t.Errorf("%+v, %v", u, err)
	}
	s = scripted(t, "echo bob:x:0:5::/b:")
	s.MinUID = 1
	if u, err := ask(t, s, "bob"); !errors.Is(err, ErrNoSuchUser) {
		t.Errorf("uid 0 with a low minimum: %+v, %v", u, err)
	}
}

func TestSystemGetentMissing(t *testing.T) {
	s := scripted(t, "")
	s.Getent = nowhere(t)
	if _, err := ask(t, s, "bob"); err == nil || errors.Is(err, ErrNoSuchUser) || !strings.Contains(err.Error(), "correct the path of getent") {
		t.Errorf("%v", err)
	}
}

// TestSystemHangs: getent waits for a server that does not answer, and a child of it holds the pipe. The test waits for the
// script to be there before it gives up, and for its processes to be gone.
func TestSystemHangs(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "started")
	s := scripted(t, fmt.Sprintf("mkfifo %s.block 2>/dev/null; echo $$ >%s; read x <%s.block & read x <%s.block", fifo, fifo, fifo, fifo))
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	s.Parallel = 1
	ctx, cancel := contextWithCause(t)
	failed := make(chan error, 2)
	go func() {
		_, err := s.Lookup(ctx, Address{Local: "bob"})
		failed <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil { // blocks until the script is running
		t.Fatal(err)
	}
	// The only place is taken: another lookup cannot start, and its own context ends it.
	brief, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Lookup(brief, Address{Local: "ann"}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("without a free place: %v", err)
	}
	why := errors.New("the client has gone")
	cancel(why)
	if err := <-failed; !errors.Is(err, why) || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("hanging: %v", err)
	}
}

func TestSystemTimeout(t *testing.T) {
	fifo := nowhere(t)
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	s := scripted(t, "read x <"+fifo)
	s.Timeout = 1 // a nanosecond: over before anything is asked
	if _, err := ask(t, s, "bob"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("%v", err)
	}
}

// TestSystemNames: what no account is called never reaches getent, and a name is never taken for an option or a uid.
func TestSystemNames(t *testing.T) {
	log := nowhere(t)
	s := scripted(t, fmt.Sprintf("printf '%%s\\n' \"$#,$1,$2,$3\" >>%s; exit 2", log))
	asked := func() string {
		data, _ := os.ReadFile(log)
		os.Remove(log)
		return string(data)
	}
	for _, name := range []string{"", ".", "..", "a/b", "a:b", "a\nb", "a\x00b", " a", "a ", "\xff", strings.Repeat("x", 256), "0", "2001", "+2001", "-1"} {
		if _, err := ask(t, &System{Socket: s.Socket, Getent: s.Getent, NSSwitch: s.NSSwitch, PasswdFile: place(t, "passwd", "", 0o600)}, name); !errors.Is(err, ErrNoSuchUser) {
			t.Errorf("%.40q: %v", name, err)
		}
		if got := asked(); got != "" {
			t.Errorf("%.40q: getent was asked: %s", name, got)
		}
	}
	for _, name := range []string{"bob", "-s", "--help", "a b", "$(id)", "'", "DOM\\bob", "bob$", "jürgen"} {
		if _, err := ask(t, s, name); !errors.Is(err, ErrNoSuchUser) {
			t.Errorf("%q: %v", name, err)
		}
		if got, want := asked(), "3,passwd,--,"+name+"\n"; got != want {
			t.Errorf("%q: getent saw %q", name, got)
		}
	}
	// A numeric name that does exist.
	s.PasswdFile = place(t, "passwd", "2001:x:3001:3001::/home/2001:/bin/sh\n", 0o600)
	s.GroupFile = nowhere(t)
	if u, err := ask(t, s, "2001"); err != nil || u.Owner.UID != 3001 {
		t.Errorf("numeric name: %+v, %v", u, err)
	}
}

// TestSystemRemoteNSS: where a directory server may be behind "not found", it is believed only with a known user at hand.
func TestSystemRemoteNSS(t *testing.T) {
	for _, c := range []struct {
		nsswitch, known string
		trust           []string
		permanent       bool
		text            string
	}{
		{"passwd: files systemd\n", "", nil, true, ""},
		{"passwd: files [NOTFOUND=continue] extrausers # ldap\ngroup: ldap\n", "", nil, true, ""},
		{"passwd:\t compat\n", "", nil, true, ""},
		{"passwd: files ldap\n", "", nil, false, "name service ldap"},
		{"passwd: files sss[ NOTFOUND=return ] winbind\n", "", nil, false, "name service sss, winbind"},
		{"passwd: compat\npasswd_compat: nis\n", "", nil, false, "name service nis"},
		{"passwd: files sss\n", "", []string{"sss"}, true, ""},
		{"passwd: files sss\n", "bob", nil, true, ""},
		{"passwd: files sss\n", "away", nil, false, `neither is the known user "away": name service sss seems to be down`},
	} {
		s := scripted(t, bobScript)
		s.NSSwitch, s.KnownUser, s.TrustNSS = place(t, "nsswitch.conf", c.nsswitch, 0o600), c.known, c.trust
		_, err := ask(t, s, "nosuch")
		if err == nil || errors.Is(err, ErrNoSuchUser) != c.permanent || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q, known user %q: %v", c.nsswitch, c.known, err)
		}
		if u, err := ask(t, s, "bob"); err != nil {
			t.Errorf("%q: bob: %+v, %v", c.nsswitch, u, err)
		}
	}
	s := scripted(t, bobScript)
	s.NSSwitch = t.TempDir()
	if _, err := ask(t, s, "nosuch"); err == nil || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("nsswitch.conf that cannot be read: %v", err)
	}
}

// noGetent makes a System that reads files itself.
func noGetent(t *testing.T, passwd, group string) *System {
	t.Setenv("PATH", t.TempDir())
	return &System{Socket: nowhere(t), PasswdFile: passwd, GroupFile: group}
}

func TestSystemFiles(t *testing.T) {
	passwd := "root:x:0:0::/root:/bin/sh\nbroken:x:1\n+ann::::::\n\nbob:x:2001:2002:Bob:/home/bob:/bin/sh\nbobby:x:2003:2003:::\n+nis:x:2009:2009:::\ncut:x:2001:2001::/h"
	group := "bob:x:2002:\nlists:x:2100:ann,bob\nroot:x:0:bob\nbroken\nodd:x:y:bob\nmore:x:50:bob\n"
	s := noGetent(t, place(t, "passwd", passwd, 0o600), place(t, "group", group, 0o600))
	want := &User{Name: "bob", Owner: &Owner{UID: 2001, GID: 2002, Groups: []uint32{50, 2100}}, Home: "/home/bob", Source: "system"}
	if u, err := ask(t, s, "bob"); err != nil || !reflect.DeepEqual(u, want) {
		t.Errorf("%+v, %v; want %+v", u, err, want)
	}
	if u, err := ask(t, s, "bobby"); err != nil || u.Owner.UID != 2003 || len(u.Owner.Groups) != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	for _, name := range []string{"root", "ann", "+ann", "+nis", "bo", "nobody"} {
		if _, err := ask(t, s, name); !errors.Is(err, ErrNoSuchUser) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"broken": "passwd:2: account \"broken\": 3 fields of 7", "cut": "passwd:8: account \"cut\""} {
		if _, err := ask(t, s, name); err == nil || errors.Is(err, ErrNoSuchUser) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{nowhere(t), t.TempDir()} {
		if _, err := ask(t, noGetent(t, path, path), "bob"); err == nil || errors.Is(err, ErrNoSuchUser) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// FuzzParseAccount: what is accepted is one whole line.
func FuzzParseAccount(f *testing.F) {
	f.Add("bob:x:2001:2001:Bob:/home/bob:/bin/sh\n")
	f.Add("bob:x:2001:2001:Bob:/home/bob:/bin/sh")
	f.Add("::0:0:::\n")
	f.Fuzz(func(t *testing.T, line string) {
		acc, err := parseAccount(line)
		if (acc == nil) == (err == nil) || err != nil && strings.ContainsAny(err.Error(), "\x00\r\n") {
			t.Fatalf("%q: %+v, %v", line, acc, err)
		}
		if err == nil && (acc.name == "" || !strings.HasPrefix(line, acc.name+":") || !strings.Contains(line, ":"+acc.home+":")) {
			t.Fatalf("%q: %+v", line, acc)
		}
	})
}

// FuzzRemoteNSS: a source that is neither local nor trusted is never overlooked.
func FuzzRemoteNSS(f *testing.F) {
	f.Add("files systemd")
	f.Add("files [NOTFOUND=return] extrausers # x")
	f.Add("]] files [[")
	f.Fuzz(func(t *testing.T, sources string) {
		for _, s := range remoteNSS("passwd: "+sources, nil) {
			if s == "" || s == "files" {
				t.Fatalf("%q: %q", sources, s)
			}
		}
		if !strings.ContainsAny(sources, "[]#\n") && !slices.Contains(remoteNSS("passwd: "+sources+" ldap\n", nil), "ldap") {
			t.Fatalf("%q hides ldap", sources)
		}
	})
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

func contextWithCause(t *testing.T) (context.Context, context.CancelCauseFunc) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}
