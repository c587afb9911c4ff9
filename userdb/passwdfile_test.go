package userdb

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// userFile is a PasswdFile on a file of its own, with a clock that only the test moves.
type userFile struct {
	*PasswdFile
	t    *testing.T
	path string
	now  atomic.Int64
	log  bytes.Buffer
}

func newUserFile(t *testing.T, content string, opts PasswdFileOptions) *userFile {
	t.Helper()
	f := &userFile{t: t, path: filepath.Join(t.TempDir(), "users")}
	f.write(content)
	f.now.Store(time.Now().UnixNano())
	opts.Clock = func() time.Time { return time.Unix(0, f.now.Load()) }
	opts.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	var err error
	if f.PasswdFile, err = NewPasswdFile(f.path, opts); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *userFile) write(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// rename puts a new file in the place of the old one, as editors and configuration management do.
func (f *userFile) rename(content string) {
	f.t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(content), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
}

// pass lets time go by, so much that the file is due and has rested.
func (f *userFile) pass() { f.now.Add(int64(2 * time.Second)) }

// want looks users up: "found", "no", "later" or "disabled" for each.
func (f *userFile) want(answers ...string) {
	f.t.Helper()
	for i := 0; i < len(answers); i += 2 {
		a, err := Rules{}.ParseString(answers[i])
		if err != nil {
			f.t.Fatal(err)
		}
		_, err = f.Lookup(f.t.Context(), a)
		got := "later"
		switch {
		case err == nil:
			got = "found"
		case errors.Is(err, ErrNoSuchDomain):
			got = "no domain"
		case errors.Is(err, ErrNoSuchUser):
			got = "no"
		case errors.Is(err, ErrDisabled):
			got = "disabled"
		}
		if got != answers[i+1] {
			f.t.Errorf("%s: %s (%v), want %s", answers[i], got, err, answers[i+1])
		}
	}
}

func TestPasswdFileDomains(t *testing.T) {
	const users = "bob\nann@a.example\nbob@b.example::::::/b\neve@b.example::::::/b:userdb_disabled=yes\n"
	f := newUserFile(t, users, PasswdFileOptions{})
	f.want("bob", "found", "bob@a.example", "found", "bob@b.example", "found", "bob@other.example", "found",
		"ann@a.example", "found", "ann", "no", "ann@b.example", "no", "ann@other.example", "no", "eve@b.example", "disabled", "eve", "no", `"ann@a.example"`, "no")
	if u, _ := f.Lookup(t.Context(), Address{Local: "bob", Domain: "b.example"}); u.Name != "bob@b.example" || u.Source != "passwd-file "+f.path {
		t.Errorf("the entry with the domain does not come first: %+v", u)
	}
	f = newUserFile(t, users, PasswdFileOptions{ExactDomain: true})
	f.want("bob", "found", "bob@a.example", "no", "bob@b.example", "found", "bob@other.example", "no domain", "ann@a.example", "found", "ann", "no")
	f = newUserFile(t, "ann@a.example\n", PasswdFileOptions{})
	f.want("ann@a.example", "found", "bob@a.example", "no", "ann@b.example", "no domain", "ann", "no domain")
}

func TestPasswdFileFoldCase(t *testing.T) {
	f := newUserFile(t, "Bob\n", PasswdFileOptions{FoldCase: true})
	f.want("bob", "found")
	f = newUserFile(t, "Bob\nbob\n", PasswdFileOptions{})
	f.want("Bob", "found", "bob", "found", "BOB", "no")
}

func TestPasswdFileStart(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := write("plain", "bob\n", 0o600)
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): ": no such file or directory; create the file or correct the path",
		filepath.Join(plain, "below"): ": not a directory; create the file or correct the path",
		dir:                           ": it is a directory; name a file of users",
		fifo:                          ": it is not a regular file; name a file of users",
		write("huge", strings.Repeat("#", 2e6), 0o600): ": it has 2000000 octets, at most 1048576 are read; split it or use a database",
		write("broken", "bob\nann:x:1\n", 0o600):       ":2: only one of uid and gid is given; give both, or neither if the mail belongs to the daemon's own user",
	} {
		p, err := NewPasswdFile(path, PasswdFileOptions{MaxSize: 1 << 20})
		if p != nil || err == nil || err.Error() != path+want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := NewPasswdFile(write("empty", "# nobody yet\n", 0o600), PasswdFileOptions{}); err != nil {
		t.Errorf("a file without users: %v", err)
	}
}

func TestPasswdFileReload(t *testing.T) {
	for name, replace := range map[string]func(f *userFile, content string){"rename": (*userFile).rename, "in place": (*userFile).write} {
		t.Run(name, func(t *testing.T) {
			f := newUserFile(t, "bob\n", PasswdFileOptions{})
			f.want("bob", "found", "ann", "no")
			replace(f, "ann\neve\n")
			// Not rested: the old version goes on, and whoever is not in it may be in the new one.
			f.want("bob", "found", "ann", "later", "nobody", "later")
			f.pass()
			f.want("bob", "no", "ann", "found", "nobody", "no")
			if err := f.Err(); err != nil || f.Len() != 2 {
				t.Errorf("Err %v, Len %d", err, f.Len())
			}
			replace(f, "bob\n")
			if err := f.Reload(); err != nil { // an explicit reload does not wait
				t.Error(err)
			}
			f.want("bob", "found", "ann", "no")
			if n := strings.Count(f.log.String(), "user file read"); n != 3 {
				t.Errorf("%d versions in the log, want 3:\n%s", n, &f.log)
			}
		})
	}
}

// TestPasswdFileSameSizeAndTime: a change that leaves size and modification time alone is seen.
func TestPasswdFileSameSizeAndTime(t *testing.T) {
	f := newUserFile(t, "bob\n", PasswdFileOptions{})
	f.pass()
	f.want("bob", "found")
	info, err := os.Stat(f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.rename("ann\n")
	if err := os.Chtimes(f.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.want("ann", "found", "bob", "no")
}

// TestPasswdFileFuture: the clock of a file server may be ahead; rest is then measured by our own.
func TestPasswdFileFuture(t *testing.T) {
	f := newUserFile(t, "bob\n", PasswdFileOptions{})
	f.write("ann\n")
	future := time.Now().Add(time.Hour)
	if err := os.Chtimes(f.path, future, future); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.want("bob", "found", "ann", "later")
	f.pass()
	f.want("ann", "found", "bob", "no")
}

// TestPasswdFileDisabled: that somebody takes no mail is a permanent answer too, and not given while another version waits.
func TestPasswdFileDisabled(t *testing.T) {
	f := newUserFile(t, "eve:x::::::userdb_disabled=yes\n", PasswdFileOptions{})
	f.want("eve", "disabled")
	f.write("eve\n")
	f.want("eve", "later")
	f.pass()
	f.want("eve", "found")
}

func TestPasswdFileHalfWritten(t *testing.T) {
	f := newUserFile(t, "bob\nann\n", PasswdFileOptions{})
	out, err := os.OpenFile(f.path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f.want("bob", "found", "eve", "later")
	f.pass() // the writer is slow: the file rests, empty
	f.want("bob", "found", "ann", "found", "eve", "later")
	fmt.Fprint(out, "bob\na")
	f.pass()
	f.want("bob", "found", "ann", "found", "eve", "later", "a", "later")
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "half written") {
		t.Errorf("Err: %v", err)
	}
	fmt.Fprint(out, "nn\neve\n")
	f.pass()
	f.want("bob", "found", "ann", "found", "eve", "found", "a", "no")
}

func TestPasswdFileProblems(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(f *userFile) error
		bob   string
		text  string
	}{
		{"mistake", func(f *userFile) error { return os.WriteFile(f.path, []byte("bob\nann:x:1\n"), 0o600) }, "found", ":2: only one of uid and gid"},
		{"emptied", func(f *userFile) error { return os.WriteFile(f.path, []byte("# bob\n"), 0o600) }, "found", "no user is left of 1"},
		{"gone", func(f *userFile) error { return os.Remove(f.path) }, "later", "no such file or directory; create the file"},
		{"directory gone", func(f *userFile) error { return os.RemoveAll(filepath.Dir(f.path)) }, "later", "no such file or directory"},
		{"directory", func(f *userFile) error { os.Remove(f.path); return os.Mkdir(f.path, 0o700) }, "found", "it is a directory"},
		{"fifo", func(f *userFile) error { os.Remove(f.path); return syscall.Mkfifo(f.path, 0o600) }, "found", "not a regular file"},
		{"loop", func(f *userFile) error { os.Remove(f.path); return os.Symlink("users", f.path) }, "found", "too many levels of symbolic links"},
		{"dangling link", func(f *userFile) error { os.Remove(f.path); return os.Symlink("nowhere", f.path) }, "later", "no such file or directory"},
		{"huge", func(f *userFile) error { return os.Truncate(f.path, 2<<20) }, "found", "at most 1048576 are read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newUserFile(t, "bob\n", PasswdFileOptions{MaxSize: 1 << 20})
			f.pass()
			f.want("bob", "found", "ann", "no")
			if err := c.spoil(f); err != nil {
				t.Fatal(err)
			}
			f.pass()
			for range 3 {
				f.want("bob", c.bob, "ann", "later")
				f.pass()
			}
			if err := f.Err(); err == nil || !strings.Contains(err.Error(), c.text) || !strings.HasPrefix(err.Error(), f.path) {
				t.Errorf("Err: %v; want %q", err, c.text)
			}
			if n := strings.Count(f.log.String(), "level=ERROR"); n != 1 {
				t.Errorf("logged %d times, want once:\n%s", n, &f.log)
			}
			if err := f.Reload(); (err == nil) != (c.name == "emptied") {
				t.Errorf("Reload: %v", err) // an explicit reload accepts a file without users
			}
			if err := os.RemoveAll(f.path); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
				t.Fatal(err)
			}
			f.write("bob\nann\n")
			f.pass()
			f.want("bob", "found", "ann", "found", "eve", "no")
			if err := f.Err(); err != nil {
				t.Errorf("Err after repair: %v", err)
			}
		})
	}
}

func TestPasswdFileUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may read every file")
	}
	f := newUserFile(t, "bob\n", PasswdFileOptions{})
	if err := os.Chmod(f.path, 0); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.want("bob", "found", "ann", "later")
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("permission denied; let uid %d read the file", os.Geteuid())) {
		t.Errorf("Err: %v", err)
	}
	if err := os.Chmod(f.path, 0o600); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.want("bob", "found", "ann", "no")
}

// TestPasswdFileClockBack: a clock that is set back must not stop the file from being looked at.
func TestPasswdFileClockBack(t *testing.T) {
	f := newUserFile(t, "bob\n", PasswdFileOptions{})
	f.write("ann\n")
	f.now.Add(-int64(time.Hour))
	f.want("bob", "found") // seen for the first time, by a clock on which it is young
	f.pass()
	f.want("ann", "found", "bob", "no")
}

// TestPasswdFileConcurrent changes the file under many readers: nobody who is in every version is ever missing.
func TestPasswdFileConcurrent(t *testing.T) {
	f := newUserFile(t, "bob\n", PasswdFileOptions{Interval: time.Nanosecond})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				f.now.Add(10)
				if _, err := f.Lookup(t.Context(), Address{Local: "bob"}); err != nil {
					t.Errorf("bob: %v", err)
					return
				}
				if _, err := f.Lookup(t.Context(), Address{Local: "nobody"}); err == nil {
					t.Error("nobody: found")
					return
				}
			}
		})
	}
	for i := range 100 {
		f.rename(strings.Repeat("# grows\n", i) + "bob\nann\n")
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestPasswdFileAllocations(t *testing.T) {
	f := newUserFile(t, "bob\nann@example.org\n", PasswdFileOptions{})
	ctx := t.Context()
	for _, a := range []Address{{Local: "bob", Domain: "example.org"}, {Local: "ann", Domain: "example.org"}} {
		if n := testing.AllocsPerRun(100, func() { f.Lookup(ctx, a) }); n != 0 {
			t.Errorf("%s: %v allocations, want none", a, n)
		}
	}
}

func BenchmarkPasswdFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "users")
	var users strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&users, "user%d@example.org:x:5000:5000::/srv/mail/user%d\n", i, i)
	}
	if err := os.WriteFile(path, []byte(users.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := NewPasswdFile(path, PasswdFileOptions{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Lookup(ctx, Address{Local: "user4711", Domain: "example.org"}); err != nil {
			b.Fatal(err)
		}
	}
}
