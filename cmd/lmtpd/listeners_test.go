package main

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// listenOn is a configuration with these sockets.
func listenOn(listen ...listenConfig) *config {
	c := &config{Listen: listen}
	for i := range listen {
		if listen[i].Protocol == "" {
			listen[i].Protocol = protoLMTP
		}
		if listen[i].Mode == 0 {
			listen[i].Mode = 0o660
		}
		if listen[i].Name == "" {
			listen[i].Name = "lmtp"
		}
	}
	return c
}

func unixAt(path string) listenConfig {
	return listenConfig{Address: socketAddress{"unix", path}}
}

// mustPrepare and commit; the listeners are closed with the test.
func mustPrepare(t *testing.T, l *listeners, c *config) []boundListener {
	t.Helper()
	change, err := l.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	change.commit()
	t.Cleanup(func() {
		for _, b := range change.bound() {
			b.Listener.Close()
		}
	})
	return change.bound()
}

func newTestListeners(t *testing.T, inherited ...inheritedSocket) *listeners {
	l := newListeners(inherited, discardLog())
	t.Cleanup(l.close)
	return l
}

// greet serves one generation: each connection gets its name and is closed. The
// channel is closed when the generation has ended, with the error it ended by.
func greet(l net.Listener, name string) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			io.WriteString(conn, name)
			conn.Close()
		}
	}()
	return ended
}

// ask connects and returns what the server says.
func ask(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

func TestReloadKeepsOpensAndCloses(t *testing.T) {
	dir := t.TempDir()
	stays, goes, comes := dir+"/stays", dir+"/goes", dir+"/comes"
	l := newTestListeners(t)
	one := mustPrepare(t, l, listenOn(listenConfig{Name: "a", Address: socketAddress{"unix", stays}}, listenConfig{Name: "b", Address: socketAddress{"unix", goes}}))
	oldA, oldB := greet(one[0].Listener, "one"), greet(one[1].Listener, "one")
	before, err := os.Lstat(stays)
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, "unix", stays) + ask(t, "unix", goes); got != "oneone" {
		t.Errorf("got %q", got)
	}

	change, err := l.prepare(listenOn(listenConfig{Name: "z", Protocol: protoSMTP, Mode: 0o600, Address: socketAddress{"unix", stays}}, listenConfig{Name: "c", Address: socketAddress{"unix", comes}}))
	if err != nil {
		t.Fatal(err)
	}
	two := change.bound()
	if two[0].Name != "z" || two[0].Protocol != protoSMTP || two[0].Address != "unix:"+stays || two[0].Systemd {
		t.Errorf("got %+v", two[0])
	}
	newA, newC := greet(two[0].Listener, "two"), greet(two[1].Listener, "two")
	change.commit()
	for _, b := range one {
		b.Listener.Close()
	}
	for _, old := range []<-chan error{oldA, oldB} {
		if err := <-old; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the old generation ended with %v", err)
		}
	}
	if got := ask(t, "unix", stays) + ask(t, "unix", comes); got != "twotwo" {
		t.Errorf("got %q", got)
	}
	after, err := os.Lstat(stays)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("%s is another socket now: %v", stays, err)
	}
	if after.Mode().Perm() != 0o600 {
		t.Errorf("mode %v after the reload", after.Mode())
	}
	if _, err := os.Lstat(goes); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", goes, err)
	}

	l.close()
	for _, path := range []string{stays, comes} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	for i, ended := range []<-chan error{newA, newC} {
		two[i].Listener.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the new generation ended with %v", err)
		}
	}
}

func TestFailedReloadChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path, extra := dir+"/lmtp.sock", dir+"/extra"
	l := newTestListeners(t)
	one := mustPrepare(t, l, listenOn(unixAt(path)))
	greet(one[0].Listener, "one")

	changed := unixAt(path)
	changed.Mode = 0o600
	_, err := l.prepare(listenOn(changed, unixAt(extra), unixAt(dir+"/missing/sock")))
	if err == nil || !strings.Contains(err.Error(), "listen.address: the directory "+dir+"/missing does not exist; create it") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(extra); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", extra, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if got := ask(t, "unix", path); got != "one" {
		t.Errorf("got %q", got)
	}
}

// A socket file that somebody has removed is made anew by a reload.
func TestReloadHealsALostSocket(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	l := newTestListeners(t)
	mustPrepare(t, l, listenOn(unixAt(path)))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	two := mustPrepare(t, l, listenOn(unixAt(path)))
	greet(two[0].Listener, "two")
	if got := ask(t, "unix", path); got != "two" {
		t.Errorf("got %q", got)
	}
}

// Connections go on to be answered, each exactly once, while generations follow each
// other.
func TestNoConnectionIsLostBetweenGenerations(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	l := newTestListeners(t)
	c := listenOn(unixAt(path))
	current := mustPrepare(t, l, c)
	ended := greet(current[0].Listener, "hello")

	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial("unix", path)
				if err != nil {
					t.Error(err)
					return
				}
				said, err := io.ReadAll(conn)
				conn.Close()
				if err != nil || string(said) != "hello" {
					t.Errorf("got %q, %v", said, err)
					return
				}
			}
		})
	}
	for i := range 300 {
		change, err := l.prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		next := change.bound()[0].Listener
		var nextEnded <-chan error
		if i%2 == 0 { // with and without a moment in which nobody accepts
			nextEnded = greet(next, "hello")
		}
		change.commit()
		current[0].Listener.Close()
		<-ended
		if nextEnded == nil {
			nextEnded = greet(next, "hello")
		}
		current, ended = change.bound(), nextEnded
	}
	close(stop)
	clients.Wait()
	current[0].Listener.Close()
	<-ended
}

// A connection that Accept has got when the generation ends is kept for the next one.
func TestKeptConnection(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	fake := &fakeListener{conns: make(chan net.Conn)}
	s := newSocket("lmtp", listenConfig{}, fake)
	old, next := newGeneration(s), newGeneration(s)

	result := make(chan error)
	go func() { _, err := old.Accept(); result <- err }()
	fake.conns <- nil // it is in Accept now
	old.Close()
	fake.conns <- server
	if err := <-result; !errors.Is(err, net.ErrClosed) {
		t.Errorf("old generation: %v", err)
	}
	if conn, err := next.Accept(); conn != server || err != nil {
		t.Errorf("next generation: %v, %v", conn, err)
	}

	// Without a next generation it is closed together with the socket.
	next.Close()
	s.kept = append(s.kept, server)
	s.close()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// fakeListener accepts what the test sends it; a nil connection only tells the test
// that Accept is waiting.
type fakeListener struct {
	net.Listener
	conns chan net.Conn
}

func (f *fakeListener) Accept() (net.Conn, error) {
	for {
		if conn := <-f.conns; conn != nil {
			return conn, nil
		}
	}
}
func (f *fakeListener) SetDeadline(time.Time) error { return nil }
func (f *fakeListener) Close() error                { return nil }

// After close a server gets what was accepted, and then waits for its own shutdown.
func TestCloseBeforeShutdown(t *testing.T) {
	l := newTestListeners(t)
	bound := mustPrepare(t, l, listenOn(unixAt(t.TempDir()+"/lmtp.sock")))
	ended := greet(bound[0].Listener, "hello")
	l.close()
	select {
	case err := <-ended:
		t.Fatalf("Accept ended before the generation: %v", err)
	default:
	}
	bound[0].Listener.Close()
	bound[0].Listener.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// Two generations accept at once, as in the middle of a reload; either may end first.
func TestGenerationsOverlap(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	l := newTestListeners(t)
	c := listenOn(unixAt(path))
	one, two := mustPrepare(t, l, c), mustPrepare(t, l, c)
	first, second := greet(one[0].Listener, "x"), greet(two[0].Listener, "x")
	two[0].Listener.Close()
	<-second
	if got := ask(t, "unix", path); got != "x" {
		t.Errorf("got %q", got)
	}
	one[0].Listener.Close()
	<-first
}

func TestTCP(t *testing.T) {
	l := newTestListeners(t)
	bound := mustPrepare(t, l, listenOn(listenConfig{Address: socketAddress{"tcp", "127.0.0.1:0"}}))
	greet(bound[0].Listener, "hello")
	address, ok := strings.CutPrefix(bound[0].Address, "tcp:")
	if got := ask(t, "tcp", address); !ok || got != "hello" {
		t.Errorf("got %q from %s", got, bound[0].Address)
	}
	_, err := newTestListeners(t).prepare(listenOn(listenConfig{Address: socketAddress{"tcp", address}}))
	if want := address + " is in use by another process; stop that process"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = newTestListeners(t).prepare(listenOn(listenConfig{Address: socketAddress{"tcp", "192.0.2.1:2424"}}))
	if want := "192.0.2.1:2424 is not an address of this machine; use one"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestUnixSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/lmtp.sock"
	prepare := func() error {
		l := newTestListeners(t)
		change, err := l.prepare(listenOn(unixAt(path)))
		if err == nil {
			change.commit()
			l.close()
		}
		return err
	}
	refused := func(t *testing.T, want string) {
		t.Helper()
		if err := prepare(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s...", err, want)
		}
	}

	t.Run("live", func(t *testing.T) {
		other, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		refused(t, "listen.address: "+path+" is served by a live process (process ")
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	})
	t.Run("live and overloaded", func(t *testing.T) {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		defer os.Remove(path)
		if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
			t.Fatal(err)
		}
		for range 10 { // until the backlog is full
			conn, err := net.Dial("unix", path)
			if err != nil {
				break
			}
			defer conn.Close()
		}
		refused(t, "listen.address: "+path+" may be served by a live process (resource temporarily unavailable)")
	})
	t.Run("datagram", func(t *testing.T) {
		other, err := net.ListenPacket("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		defer other.Close()
		refused(t, "listen.address: "+path+" may be served by a live process (protocol wrong type")
	})
	t.Run("stale", func(t *testing.T) {
		other, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		other.(*net.UnixListener).SetUnlinkOnClose(false)
		other.Close()
		if err := prepare(); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("file", func(t *testing.T) {
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		refused(t, "listen.address: "+path+" is in the way: it is not a socket; move it")
		if data, err := os.ReadFile(path); string(data) != "precious" {
			t.Errorf("%q, %v", data, err)
		}
	})
	t.Run("dangling link", func(t *testing.T) {
		if err := os.Symlink(dir+"/nowhere", path); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		refused(t, "listen.address: "+path+" is in the way: it is not a socket")
	})
	t.Run("below a file", func(t *testing.T) {
		file := dir + "/file"
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := newTestListeners(t).prepare(listenOn(unixAt(file + "/sock")))
		if want := "listen.address: " + file + " is not a directory"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// On shutdown a socket that another process has put in the place of ours stays.
func TestOnlyOurOwnSocketIsRemoved(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	l := newTestListeners(t)
	mustPrepare(t, l, listenOn(unixAt(path)))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.close()
	greet(other, "other")
	if got := ask(t, "unix", path); got != "other" {
		t.Errorf("got %q", got)
	}
}

func TestSocketAccess(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/lmtp.sock"
	own := unixAt(path)
	own.Mode = 0o606 // no usual umask leaves this
	own.Group = strconv.Itoa(os.Getegid())
	own.Owner = strconv.Itoa(os.Geteuid())
	l := newTestListeners(t)
	mustPrepare(t, l, listenOn(own))
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o606 {
		t.Errorf("%v, %v", info, err)
	}

	for _, test := range []struct{ owner, group, want string }{
		{"", "no-such-group", `there is no group "no-such-group"; create it`},
		{"no-such-user", "", `there is no user "no-such-user"; create it`},
	} {
		lc := unixAt(dir + "/other")
		lc.Owner, lc.Group = test.owner, test.group
		_, err := l.prepare(listenOn(own, lc))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
		if _, err := os.Lstat(dir + "/other"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left behind: %v", err)
		}
	}
	t.Run("group", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root may give a socket to any group")
		}
		own.Group, own.Owner = "12345", "54321"
		mustPrepare(t, l, listenOn(own))
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); st.Gid != 12345 || st.Uid != 54321 {
			t.Errorf("uid %d, gid %d", st.Uid, st.Gid)
		}
	})
	t.Run("foreign group", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may give a socket to any group")
		}
		lc := unixAt(dir + "/other")
		lc.Group = "12345"
		if _, err := l.prepare(listenOn(own, lc)); err == nil || !strings.Contains(err.Error(), "may not give "+dir+"/other") {
			t.Errorf("got %v", err)
		}
	})
}

// Between bind and chmod the file must not be open to others, whatever the umask is.
func TestSocketIsPrivateFromTheStart(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	ln, err := bindPrivate("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
