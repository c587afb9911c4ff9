package userdb_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/userdb"
	"github.com/lmtpd/lmtpd/userdb/userdbtest"
)

func write(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func addr(s string) userdb.Address {
	a, err := userdb.Rules{}.ParseString(s)
	if err != nil {
		panic(err)
	}
	return a
}

func passwdFile(t *testing.T) userdbtest.Subject {
	const users = "# two of them\nbob:x:5001:5002:Bob:/home/bob:/bin/sh:userdb_quota_rule=*:storage=1G userdb_mail=maildir:~/Mail\n" +
		"ann@example.org:x\n\"eve:x::::::userdb_disabled=yes\n"
	path := write(t, filepath.Join(t.TempDir(), "users"), users, 0o600)
	p, err := userdb.NewPasswdFile(path, userdb.PasswdFileOptions{Interval: 1}) // look each time
	if err != nil {
		t.Fatal(err)
	}
	bob := userdb.User{Name: "bob", Owner: &userdb.Owner{UID: 5001, GID: 5002}, Home: "/home/bob", Mail: "~/Mail",
		Extra: map[string]string{"quota_rule": "*:storage=1G"}}
	return userdbtest.Subject{
		Database: p,
		Known:    []userdbtest.Known{{Address: addr("bob@example.org"), User: bob}, {Address: addr("bob"), User: bob}, {Address: addr("ann@example.org"), User: userdb.User{Name: "ann@example.org"}}},
		Unknown:  []userdb.Address{addr("nobody@example.org"), addr("Bob@example.org"), addr("ann@example.net"), addr("ann")},
		Disabled: []userdb.Address{{Local: `"eve`, Domain: "example.org"}},
		Break:    func() { write(t, path, "bob:x:this is\n", 0o600) },
		Repair:   func() { write(t, path, users, 0o600) },
	}
}

func TestPasswdFile(t *testing.T) { userdbtest.Run(t, passwdFile) }

func TestPasswdFileGone(t *testing.T) {
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		s := passwdFile(t)
		path := strings.TrimPrefix(s.Database.String(), "passwd-file ")
		s.Break = func() {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
		}
		s.Repair = func() {
			if err := os.Rename(path+".away", path); err != nil {
				t.Fatal(err)
			}
		}
		return s
	})
}

func TestChainAndCache(t *testing.T) {
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		s := passwdFile(t)
		empty, err := userdb.NewPasswdFile(write(t, filepath.Join(t.TempDir(), "empty"), "", 0o600), userdb.PasswdFileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.Database = &userdb.Cache{Database: userdb.Chain{{Database: empty}, {Database: userdb.Any{}, Domains: []string{"nowhere.example"}}, {Database: s.Database}}}
		return s
	})
}

func TestAny(t *testing.T) {
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		return userdbtest.Subject{
			Database: userdb.Any{},
			Known: []userdbtest.Known{
				{Address: addr("bob@example.org"), User: userdb.User{Name: "bob@example.org"}},
				{Address: addr(`"quo ted"@example.org`), User: userdb.User{Name: "quo ted@example.org"}},
				{Address: addr("postmaster"), User: userdb.User{Name: "postmaster"}},
			},
		}
	})
}

// accounts are what every System below is asked for.
var (
	accountsPasswd = "root:x:0:0:root:/root:/bin/bash\nlmtpdbob:x:7001:7001:Bob,,,:/home/lmtpdbob:/usr/sbin/nologin\nlmtpd-ann:x:7002:7001::/srv/ann:\nlmtpdlow:x:998:7001::/:\n"
	accountsGroup  = "root:x:0:\nlmtpdbob:x:7001:\nlmtpdlists:x:7100:lmtpdbob,nobody\nlmtpdmore:x:7050:lmtpdbob\n"
	accountsKnown  = []userdbtest.Known{
		{Address: addr("lmtpdbob@example.org"), User: userdb.User{Name: "lmtpdbob", Owner: &userdb.Owner{UID: 7001, GID: 7001, Groups: []uint32{7050, 7100}}, Home: "/home/lmtpdbob"}},
		{Address: addr("lmtpd-ann"), User: userdb.User{Name: "lmtpd-ann", Owner: &userdb.Owner{UID: 7002, GID: 7001}, Home: "/srv/ann"}},
	}
	accountsUnknown = []userdb.Address{addr("lmtpdnobody@example.org"), addr("root"), addr("nobody"), addr("daemon"), addr("lmtpdlow")}
)

func TestSystemFiles(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no getent
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		dir := t.TempDir()
		passwd := write(t, filepath.Join(dir, "passwd"), accountsPasswd, 0o600)
		return userdbtest.Subject{
			Database: &userdb.System{Socket: filepath.Join(dir, "none"), PasswdFile: passwd, GroupFile: write(t, filepath.Join(dir, "group"), accountsGroup, 0o600)},
			Known:    accountsKnown,
			Unknown:  accountsUnknown,
			Break:    func() { os.Rename(passwd, passwd+".away") },
			Repair:   func() { os.Rename(passwd+".away", passwd) },
		}
	})
}

// inNSS writes a script that runs program where the C library finds our accounts, and only there: in a mount namespace with
// an nsswitch.conf that names extrausers, a source beyond /etc/passwd. It skips the test where that cannot be had.
func inNSS(t *testing.T, program string) string {
	t.Helper()
	if m, _ := filepath.Glob("/usr/lib*/libnss_extrausers.so.2"); m == nil {
		if m, _ = filepath.Glob("/usr/lib/*/libnss_extrausers.so.2"); m == nil {
			t.Skip("no NSS source beyond /etc/passwd: Debian's package libnss-extrausers is not installed")
		}
	}
	for _, p := range []string{"unshare", "mount", "getent"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "extra"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "nsswitch.conf"), "passwd: files extrausers\ngroup: files extrausers\n", 0o644)
	write(t, filepath.Join(dir, "extra", "passwd"), accountsPasswd, 0o644)
	write(t, filepath.Join(dir, "extra", "group"), accountsGroup, 0o644)
	unshare := "unshare -m"
	if os.Geteuid() != 0 {
		unshare = "unshare -rm"
	}
	script := func(program string) string {
		return "#!/bin/sh\nexec " + unshare + " sh -c 'mount --bind " + dir + "/nsswitch.conf /etc/nsswitch.conf && mount --bind " + dir +
			"/extra /var/lib/extrausers && exec " + program + " \"$@\"' sh \"$@\"\n"
	}
	if out, err := exec.Command(write(t, filepath.Join(dir, "probe"), script("true"), 0o755)).CombinedOutput(); err != nil {
		t.Skipf("no mount namespace with files of our own: %v: %s", err, out)
	}
	return write(t, filepath.Join(dir, "run"), script(program), 0o755)
}

// TestSystemGetent asks the real getent, through a real NSS module.
func TestSystemGetent(t *testing.T) {
	getent := inNSS(t, "getent")
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		link := filepath.Join(t.TempDir(), "getent")
		repair := func() {
			os.Remove(link)
			if err := os.Symlink(getent, link); err != nil {
				t.Fatal(err)
			}
		}
		repair()
		return userdbtest.Subject{
			Database: &userdb.System{Socket: link + ".none", Getent: link, NSSwitch: filepath.Join(filepath.Dir(getent), "nsswitch.conf")},
			Known:    accountsKnown,
			Unknown:  accountsUnknown,
			Break: func() {
				os.Remove(link)
				write(t, link, "#!/bin/sh\nexit 127\n", 0o755)
			},
			Repair: repair,
		}
	})
	// getent takes a number for a uid; a name that is a number is not that user.
	s := &userdb.System{Socket: getent + ".none", Getent: getent}
	if u, err := s.Lookup(t.Context(), userdb.Address{Local: "7001"}); !errors.Is(err, userdb.ErrNoSuchUser) {
		t.Errorf("7001: %+v, %v", u, err)
	}
}

// TestSystemThisMachine asks with everything where it is on this machine.
func TestSystemThisMachine(t *testing.T) {
	s := &userdb.System{}
	if u, err := s.Lookup(t.Context(), addr("root")); u != nil || !errors.Is(err, userdb.ErrNoSuchUser) {
		t.Errorf("root: %+v, %v", u, err)
	}
	me, err := user.Current()
	if err != nil || os.Getuid() < 1000 || os.Getuid() >= 65534 {
		t.Skipf("the user who runs the test is no ordinary one: uid %d, %v", os.Getuid(), err)
	}
	if u, err := s.Lookup(t.Context(), userdb.Address{Local: me.Username}); err != nil || u.Home != me.HomeDir || int(u.Owner.UID) != os.Getuid() {
		t.Errorf("%s: %+v, %v", me.Username, u, err)
	}
}

// TestSystemUserdbd asks the real systemd-userdbd, started by hand with a socket of ours, through the real NSS module.
func TestSystemUserdbd(t *testing.T) {
	const program = "/lib/systemd/systemd-userdbd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("Debian's package systemd-userdbd is not installed: ", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("systemd-userdbd runs as root only")
	}
	run := inNSS(t, "env LISTEN_PID=$$ LISTEN_FDS=1 "+program)
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(run)
	cmd.ExtraFiles = []*os.File{f} // descriptor 3
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		l.Close()
	})
	// The socket listens already, so the first question waits for the daemon's workers.
	if !answers(t, socket) {
		t.Skip("systemd-userdbd does not work here")
	}
	userdbtest.Run(t, func(t *testing.T) userdbtest.Subject {
		link := filepath.Join(t.TempDir(), "socket")
		repair := func() {
			os.Remove(link)
			if err := os.Symlink(socket, link); err != nil {
				t.Fatal(err)
			}
		}
		repair()
		return userdbtest.Subject{
			Database: &userdb.System{Socket: link, NSSwitch: filepath.Join(filepath.Dir(run), "nsswitch.conf")},
			Known:    accountsKnown,
			Unknown:  accountsUnknown,
			Break: func() {
				os.Remove(link)
				write(t, link, "", 0o600)
			},
			Repair: repair,
		}
	})
}

// answers says whether the daemon behind the socket speaks at all.
func answers(t *testing.T, socket string) bool {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		t.Log(err)
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write([]byte("{\"method\":\"org.varlink.service.GetInfo\"}\x00")); err != nil {
		t.Log(err)
		return false
	}
	var reply map[string]any
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		t.Log(err)
		return false
	}
	return true
}
