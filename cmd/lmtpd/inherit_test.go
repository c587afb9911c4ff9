package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inheritedFile is a copy of the descriptor of a listener, as systemd would pass it.
func inheritedFile(t *testing.T, name, network, address string) (*os.File, net.Addr) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer ln.Close()
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd())) // to give it the name
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), name), ln.Addr()
}

func TestInheritedSockets(t *testing.T) {
	dir := t.TempDir()
	unix, _ := inheritedFile(t, "lmtp", "unix", dir+"/lmtp.sock")
	again, _ := inheritedFile(t, "lmtp", "unix", dir+"/chroot.sock")
	tcp, address := inheritedFile(t, "smtp-local", "tcp", "127.0.0.1:0")
	unnamed, _ := inheritedFile(t, "lmtpd.socket", "unix", dir+"/unnamed.sock")
	sockets, err := inheritSockets([]*os.File{unix, again, tcp, unnamed})
	if err != nil {
		t.Fatal(err)
	}
	l := newTestListeners(t, sockets...)
	c := listenOn(
		listenConfig{Name: "lmtp", Protocol: protoSMTP, Address: socketAddress{"unix", dir + "/not-opened"}},
		listenConfig{Name: "own", Address: socketAddress{"unix", dir + "/own"}},
	)
	bound := mustPrepare(t, l, c)
	var got []string
	for _, b := range bound {
		got = append(got, fmt.Sprintf("%s %s %s %v", b.Name, b.Protocol, strings.Replace(b.Address, dir, "", 1), b.Systemd))
		greet(b.Listener, b.Name)
	}
	want := []string{
		"lmtp smtp unix:/lmtp.sock true",
		"lmtp smtp unix:/chroot.sock true",
		"smtp-local smtp tcp:" + address.String() + " true",
		"lmtpd.socket lmtp unix:/unnamed.sock true",
		"own lmtp unix:/own false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := ask(t, "unix", dir+"/lmtp.sock") + ask(t, "tcp", address.String()); got != "lmtpsmtp-local" {
		t.Errorf("got %q", got)
	}

	// A configuration that does not name them leaves them open, and so does the end:
	// they belong to systemd.
	mustPrepare(t, l, listenOn())
	l.close()
	for _, name := range []string{"/lmtp.sock", "/chroot.sock", "/unnamed.sock"} {
		if _, err := os.Lstat(dir + name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(dir + "/own"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("our own socket is still there: %v", err)
	}
}

func TestBadDescriptorsFromSystemd(t *testing.T) {
	open := map[string]func(t *testing.T) *os.File{
		"is not a socket": func(t *testing.T) *os.File {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"is not a stream socket": func(t *testing.T) *os.File {
			c, err := net.ListenPacket("unixgram", t.TempDir()+"/s")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f, err := c.(*net.UnixConn).File()
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
		"is not listening": func(t *testing.T) *os.File {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f, err := c.(*net.TCPConn).File()
			if err != nil {
				t.Fatal(err)
			}
			return f
		},
	}
	for want, file := range open {
		t.Run(want, func(t *testing.T) {
			bad := file(t)
			good, _ := inheritedFile(t, "lmtp", "unix", t.TempDir()+"/lmtp.sock")
			sockets, err := inheritSockets([]*os.File{good, bad})
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Accept=no") || sockets != nil {
				t.Errorf("got %v, %v", sockets, err)
			}
		})
	}
}

func TestNoSocketAtAll(t *testing.T) {
	_, err := newTestListeners(t).prepare(listenOn())
	if want := "listen: there is no socket to serve; add a [[listen]]"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = newTestListeners(t).prepare(listenOn(listenConfig{Name: "in"}))
	if want := `listen.address: systemd passed no socket named "in"; add an address, or FileDescriptorName=in`; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// inheritingProcess is the environment variable that makes this test program the one
// that systemd starts.
const inheritingProcess = "LMTPD_TEST_INHERIT"

func TestSocketsFromSystemd(t *testing.T) {
	if os.Getenv(inheritingProcess) != "" {
		sockets, err := socketsFromSystemd()
		for _, s := range sockets {
			fmt.Println("got", s.name, s.listener.Addr())
		}
		fmt.Println("error", err, "environment", os.Getenv("LISTEN_FDS"))
		return
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell, to know the process id before the start: ", err)
	}
	path := t.TempDir() + "/lmtp.sock"
	run := func(pid string) string {
		file, _ := inheritedFile(t, "", "unix", path)
		defer os.Remove(path)
		defer file.Close()
		cmd := exec.Command(shell, "-c", "LISTEN_PID="+pid+` exec "$0" -test.run=TestSocketsFromSystemd`, os.Args[0])
		cmd.Env = append(os.Environ(), inheritingProcess+"=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=front")
		cmd.ExtraFiles = []*os.File{file}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		text, _, _ := strings.Cut(string(out), "PASS")
		return text
	}
	if got, want := run("$$"), "got front "+path+"\nerror <nil> environment \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := run("1"), "error <nil> environment \n"; got != want {
		t.Errorf("for another process: got %q, want %q", got, want)
	}
}

// What waits in the backlog of a socket from systemd outlives this process's use of it.
func TestBacklogSurvives(t *testing.T) {
	path := t.TempDir() + "/lmtp.sock"
	file, _ := inheritedFile(t, "lmtp", "unix", path)
	systemds, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	defer systemds.Close()
	sockets, err := inheritSockets([]*os.File{file})
	if err != nil {
		t.Fatal(err)
	}
	l := newTestListeners(t, sockets...)
	bound := mustPrepare(t, l, listenOn())
	ended := greet(bound[0].Listener, "first process")
	if got := ask(t, "unix", path); got != "first process" {
		t.Errorf("got %q", got)
	}
	l.close()
	bound[0].Listener.Close()
	<-ended

	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	greet(systemds, "next process")
	if said, err := io.ReadAll(conn); string(said) != "next process" {
		t.Errorf("got %q, %v", said, err)
	}
}
