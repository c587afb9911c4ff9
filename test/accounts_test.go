package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// accounts are login accounts that exist in one test only: files laid over
// /etc/passwd and /etc/group in a mount namespace.
type accounts struct {
	home   func(name string) string
	within []string // command that starts others in the namespace's view
}

const firstAccount = 61001 // uid and gid of the first name; the next follow

// newAccounts gives each name a home that only its owner may read.
func newAccounts(t *testing.T, dir string, names ...string) accounts {
	t.Helper()
	needRoot(t, "make accounts")
	need(t, "unshare", "setpriv")
	a := accounts{home: func(name string) string { return filepath.Join(dir, "home", name) }}
	passwd, group := readFile(t, "/etc/passwd"), readFile(t, "/etc/group")
	for i, name := range names {
		id := firstAccount + i
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin\n", name, id, id, a.home(name))
		group += fmt.Sprintf("%s:x:%d:\n", name, id)
		mkdir(t, a.home(name), nil)
		if err := os.Chown(a.home(name), id, id); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(a.home(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	files := []string{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	writeFile(t, files[0], passwd)
	writeFile(t, files[1], group)
	const script = `mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/group && shift 2 && exec "$@"`
	a.within = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"}, files...)
	return a
}

// capable is a command that starts lmtpd as the package's unit does for system
// users: not as root, but able to become a user.
func (a accounts) capable(t *testing.T) []string {
	t.Helper()
	u := mailUser(t)
	return append(a.within[:len(a.within):len(a.within)], "setpriv",
		fmt.Sprint("--reuid=", u.Uid), fmt.Sprint("--regid=", u.Gid), fmt.Sprint("--groups=", u.Groups[0]),
		"--inh-caps=-all,+setuid,+setgid", "--ambient-caps=-all,+setuid,+setgid",
		"--bounding-set=-all,+setuid,+setgid", "--no-new-privs")
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	if !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return s
}
