package writer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Accounts that exist nowhere: the kernel knows numbers only.
const (
	bobUID, bobGID = 64101, 64201
	eveUID, eveGID = 64102, 64202
)

// realm is a writer process's world: bob's home, and what he must not reach by it.
type realm struct {
	client  *Client
	home    string // bob's
	outside string // a directory that everybody may write to
}

// newRealm has a real maildir.Writer with the given hook behind a server.
func newRealm(t *testing.T, before func(op, path string) error) *realm {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: switching to other accounts")
	}
	dir := socketPath(t)
	dir = filepath.Dir(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	r := &realm{home: filepath.Join(dir, "bob"), outside: filepath.Join(dir, "outside")}
	mkdir(t, r.home, bobUID, bobGID, 0o700)
	mkdir(t, r.outside, 0, 0, 0o777)
	for _, sub := range []string{"cur", "new", "tmp"} {
		mkdir(t, filepath.Join(r.outside, sub), 0, 0, 0o777)
	}
	r.client = pair(t, &Server{Writer: &maildir.Writer{Durability: maildir.None, Before: before}})
	return r
}

func mkdir(t testing.TB, dir string, uid, gid int, mode uint32) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

func (r *realm) target() maildir.Target {
	return maildir.Target{Owner: &maildir.Owner{UID: bobUID, GID: bobGID}, Root: r.home, Path: "mail/Maildir", Folder: ".lists"}
}

// reached lists what has come to be outside.
func (r *realm) reached(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(r.outside, func(p string, d fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(r.outside, p); err == nil && strings.Trim(rel, ".") != "" && rel != "cur" && rel != "new" && rel != "tmp" {
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// classicOnly makes the writer go by way of tmp/.
func classicOnly(op, _ string) error {
	if op == maildir.OpUnnamed {
		return syscall.EOPNOTSUPP
	}
	return nil
}

// Whatever stands in the place of a directory, at each place: nothing is followed,
// nothing blocks, nothing is written anywhere else.
func TestPlanted(t *testing.T) {
	plants := map[string]func(t *testing.T, r *realm, at string){
		"link": func(t *testing.T, r *realm, at string) { check(t, os.Symlink(r.outside, at)) },
		"link to a mailbox of one's own": func(t *testing.T, r *realm, at string) {
			mkdir(t, filepath.Join(r.home, "elsewhere"), bobUID, bobGID, 0o700)
			check(t, os.Symlink("elsewhere", at))
		},
		"link in the air": func(t *testing.T, r *realm, at string) { check(t, os.Symlink(r.outside+"/made", at)) },
		"magic link":      func(t *testing.T, r *realm, at string) { check(t, os.Symlink("/proc/self/cwd", at)) },
		"FIFO":            func(t *testing.T, r *realm, at string) { check(t, syscall.Mkfifo(at, 0o666)) },
		"device":          func(t *testing.T, r *realm, at string) { check(t, syscall.Mknod(at, syscall.S_IFCHR|0o666, 1<<8|3)) },
		"file":            func(t *testing.T, r *realm, at string) { check(t, os.WriteFile(at, nil, 0o666)) },
		"socket": func(t *testing.T, r *realm, at string) {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
			check(t, err)
			t.Cleanup(func() { ln.Close() })
		},
		"directory of another": func(t *testing.T, r *realm, at string) { mkdir(t, at, eveUID, eveGID, 0o777) },
	}
	for name, plant := range plants {
		for _, place := range []string{"mail", "mail/Maildir", "mail/Maildir/new", "mail/Maildir/tmp", "mail/Maildir/.lists", "mail/Maildir/.lists/new", "mail/Maildir/.lists/tmp"} {
			for _, way := range []func(string, string) error{nil, classicOnly} {
				r := newRealm(t, way)
				for _, sub := range []string{"new", "tmp", ".lists/new", ".lists/tmp"} {
					check(t, os.MkdirAll(filepath.Join(r.home, "mail/Maildir", sub), 0o700))
				}
				at := filepath.Join(r.home, place)
				check(t, os.RemoveAll(at))
				check(t, filepath.WalkDir(r.home, func(p string, _ fs.DirEntry, _ error) error { return os.Lchown(p, bobUID, bobGID) }))
				plant(t, r, at)
				target := r.target()
				if !strings.Contains(place, ".lists") {
					target.Folder = ""
				}
				res := deliver(t, t.Context(), r.client, text("Subject: x\n\n"), target)[0]
				if res.Err == nil {
					// A folder that is none is the INBOX, tmp/ is not always needed, and
					// only where a message comes to lie must the directory be bob's.
					harmless := place == "mail/Maildir/.lists" || strings.HasSuffix(place, "/tmp") ||
						name == "directory of another" && filepath.Base(place) != "new"
					info, err := os.Lstat(res.File)
					if !harmless || !strings.HasPrefix(res.File, r.home+"/mail/Maildir/") || err != nil ||
						!info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Uid != bobUID {
						t.Errorf("%s at %s: delivered to %s: %v %v", name, place, res.File, info, err)
					}
				}
				if got := r.reached(t); len(got) > 0 {
					t.Errorf("%s at %s: made %v outside", name, place, got)
				}
			}
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sysctl sets a kernel parameter for the rest of the test, if that can be done.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(old)) != value {
		err = os.WriteFile(path, []byte(value), 0)
		t.Cleanup(func() { os.WriteFile(path, old, 0) })
	}
	if err != nil {
		t.Logf("%s stays as it is: %v", name, err)
	}
}

const swapEnv = "WRITER_TEST_SWAP"

// The owner exchanges directories and links in a loop, at every place of the way,
// while messages are delivered. Each ends in his mailbox or is refused.
func TestSwappedWhileDelivered(t *testing.T) {
	for _, way := range []struct {
		name   string
		before func(string, string) error
	}{{"unnamed", nil}, {"classic", classicOnly}} {
		t.Run(way.name, func(t *testing.T) {
			r := newRealm(t, way.before)
			sysctl(t, "fs/protected_symlinks", "0")
			sysctl(t, "fs/protected_hardlinks", "0")
			stop := swapper(t, r)
			const rounds = 150
			delivered, refused := 0, map[string]int{}
			for range rounds {
				for _, res := range deliver(t, t.Context(), r.client, text("Subject: x\n\n"), r.target(), r.target(), r.target(), r.target()) {
					if res.Err == nil {
						delivered++
						continue
					}
					var errno syscall.Errno
					if !errors.As(res.Err, &errno) {
						t.Errorf("refused without an errno: %v", res.Err)
					}
					refused[errno.Error()]++
				}
			}
			swaps := stop()
			t.Logf("%d delivered, refused %v, %s swaps", delivered, refused, swaps)
			if got := r.reached(t); len(got) > 0 {
				t.Errorf("made outside: %v", got)
			}
			// All that there is belongs to bob, wherever he has moved it.
			check(t, filepath.WalkDir(r.home, func(p string, d fs.DirEntry, err error) error {
				if info, e := os.Lstat(p); err == nil && e == nil && info.Sys().(*syscall.Stat_t).Uid != bobUID {
					t.Errorf("%s belongs to %d", p, info.Sys().(*syscall.Stat_t).Uid)
				}
				return err
			}))
			if delivered == 0 || len(refused) == 0 {
				t.Errorf("the race was not one: %d delivered, refused %v", delivered, refused)
			}
		})
	}
}

// swapper starts a process of bob's that runs TestSwapperChild until stop is called,
// which returns how often it has swapped.
func swapper(t *testing.T, r *realm) (stop func() string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestSwapperChild$")
	cmd.Env = append(os.Environ(), swapEnv+"="+r.home+":"+r.outside)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: bobUID, Gid: bobGID}, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = os.Stderr
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "swapping" {
		t.Fatalf("the swapper says %q", lines.Text())
	}
	return func() string {
		in.Close()
		last := ""
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "swaps ") {
				last = strings.TrimPrefix(lines.Text(), "swaps ")
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("swapper: %v", err)
		}
		return last
	}
}

func TestSwapperChild(t *testing.T) {
	home, outside, ok := strings.Cut(os.Getenv(swapEnv), ":")
	if !ok {
		t.Skip("runs as the child of TestSwappedWhileDelivered")
	}
	places := []string{"mail", "mail/Maildir", "mail/Maildir/new", "mail/Maildir/tmp", "mail/Maildir/.lists", "mail/Maildir/.lists/new"}
	for _, p := range []string{"cur", "new", "tmp", ".lists/cur", ".lists/new", ".lists/tmp"} {
		check(t, os.MkdirAll(filepath.Join(home, "mail/Maildir", p), 0o700))
	}
	link := filepath.Join(home, "link")
	check(t, os.Symlink(outside, link))
	fmt.Println("swapping")
	over := make(chan struct{})
	go func() {
		defer close(over)
		bufio.NewReader(os.Stdin).ReadByte() // ends with the test
	}()
	swaps := 0
	for ; swaps < 50_000_000; swaps++ {
		select {
		case <-over:
			fmt.Println("swaps", swaps)
			return
		default:
		}
		at := filepath.Join(home, places[rand.IntN(len(places))])
		// Both exist at every moment; twice, so that the mailbox comes back.
		for range 2 {
			_ = unix.Renameat2(unix.AT_FDCWD, link, unix.AT_FDCWD, at, unix.RENAME_EXCHANGE)
		}
	}
}

// No request, however odd, opens a message that is there for reading, changes it, or
// removes it.
func TestMessagesStay(t *testing.T) {
	r := newRealm(t, nil)
	target := r.target()
	target.Folder = ""
	first := deliver(t, t.Context(), r.client, text("Subject: secret\n\n"), target)[0]
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	new := filepath.Dir(first.File)
	cur := filepath.Join(filepath.Dir(new), "cur", "1.a.b:2,S")
	check(t, os.WriteFile(cur, []byte("read\n"), 0o600))
	check(t, os.Chown(cur, bobUID, bobGID))
	before := map[string]os.FileInfo{}
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	defer unix.Close(watch)
	for _, name := range []string{first.File, cur} {
		before[name], err = os.Stat(name)
		check(t, err)
		_, err = unix.InotifyAddWatch(watch, name, unix.IN_ALL_EVENTS)
		check(t, err)
	}
	token := "0123456789abcdef0123456789abcdef"
	name := filepath.Base(first.File)
	all := []maildir.Target{target}
	for _, path := range []string{"mail/Maildir/new", "mail/Maildir/new/" + name, "mail/Maildir/cur/1.a.b:2,S", "mail/Maildir/../Maildir", "mail", "/", "mail/Maildir/new/..", ""} {
		for _, folder := range []string{"", ".", "..", "../Maildir", ".lists", "new", ".new/" + name, name, ".." + name, "./../cur"} {
			for _, make := range []bool{false, true} {
				c := target
				c.Path, c.Folder, c.MakeFolder = path, folder, make
				all = append(all, c)
			}
		}
	}
	for _, tok := range []string{token, "", "..", "/", name, strings.TrimPrefix(name, "1")} {
		for _, flags := range []string{"", "S", "T", "/", "S/../../" + name, "TS"} {
			c := target
			c.Token, c.Seek, c.Flags = tok, true, flags
			all = append(all, c)
		}
	}
	body := text("Subject: forged\n\n")
	for _, res := range deliver(t, t.Context(), r.client, body, all...) {
		if res.File == first.File || res.File == cur {
			t.Errorf("a message that was there is the result: %+v", res)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	deliver(t, cancelled, r.client, body, all...)
	for name, old := range before {
		now, err := os.Stat(name)
		if err != nil || !os.SameFile(old, now) || !now.ModTime().Equal(old.ModTime()) || now.Size() != old.Size() || now.Mode() != old.Mode() {
			t.Errorf("%s: %v, %v", name, now, err)
		}
	}
	buf := make([]byte, 4096)
	if n, err := unix.Read(watch, buf); err != unix.EAGAIN {
		t.Errorf("something was done to a message: %d octets of events, %v", n, err)
	}
}

// The front learns what a mailbox holds without any right to it.
func TestCheckQuota(t *testing.T) {
	r := newRealm(t, nil)
	target := r.target()
	target.Folder, target.Quota = "", &maildir.Quota{Octets: 100}
	res := deliver(t, t.Context(), r.client, text("Subject: x\n\n"), target)[0]
	if res.Err != nil || res.Usage.Octets != 12 || res.Usage.Messages != 1 {
		t.Fatalf("%+v", res)
	}
	usage, err := r.client.CheckQuota(t.Context(), target, 50)
	if err != nil || usage != res.Usage {
		t.Errorf("%+v, %v", usage, err)
	}
	var full *maildir.QuotaError
	if _, err := r.client.CheckQuota(t.Context(), target, 99); !errors.Is(err, maildir.ErrQuota) || !errors.As(err, &full) ||
		full.Usage != res.Usage || full.Limit.Octets != 100 {
		t.Errorf("full: %+v, %v", full, err)
	}
	if _, err := r.client.CheckQuota(t.Context(), target, 1<<40); !errors.Is(err, maildir.ErrQuotaSize) {
		t.Errorf("too large: %v", err)
	}
	foreign := pair(t, &Server{Writer: good, Authorize: func(context.Context, *maildir.Target) error { return maildir.ErrPath }})
	if _, err := foreign.CheckQuota(t.Context(), target, 1); !errors.Is(err, maildir.ErrPath) {
		t.Errorf("not allowed: %v", err)
	}
}
