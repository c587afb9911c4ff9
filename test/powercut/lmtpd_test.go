package powercut

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mailUser owns all mail. The account need not exist.
const mailUser = 5000

// site is lmtpd for one mail user, whose homes are below root.
type site struct {
	dir, root, socket string
	users             int
	extra             string // configuration
	noTmpfile         bool   // the kernel refuses O_TMPFILE
	cmd               *exec.Cmd
	out               *bytes.Buffer
}

func newSite(t *testing.T, root string, users int, durability string) *site {
	t.Helper()
	s := &site{dir: tempDir(t), root: root, users: users}
	s.extra = fmt.Sprintf("[mailbox]\npath = \"~/Maildir\"\ndurability = %q\n", durability)
	s.socket = filepath.Join(s.dir, "lmtp.sock")
	if err := os.Chown(s.dir, mailUser, mailUser); err != nil {
		t.Fatal(err)
	}
	return s
}

// makeHomes makes the homes of all users; their Maildirs are lmtpd's to make.
func makeHomes(t *testing.T, root string, users int) {
	t.Helper()
	for u := range users {
		home := filepath.Join(root, userName(u))
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(home, mailUser, mailUser); err != nil {
			t.Fatal(err)
		}
	}
}

// start runs lmtpd and returns when it is ready.
func (s *site) start(t *testing.T) {
	t.Helper()
	var table strings.Builder
	for u := range s.users {
		fmt.Fprintf(&table, "%s%s:::::%s::\n", userName(u), domain, filepath.Join(s.root, userName(u)))
	}
	state := filepath.Join(s.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, mailUser, mailUser); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("hostname = \"mx.example.org\"\n[[listen]]\nname = \"lmtp\"\nprotocol = \"lmtp\"\naddress = \"unix:%s\"\n"+
		"[[userdb]]\ntype = \"passwd-file\"\npath = \"%s/users\"\n[status]\nsocket = \"\"\n%s", s.socket, s.dir, s.extra)
	for name, text := range map[string]string{"users": table.String(), "lmtpd.toml": config} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filepath.Join(s.dir, "notify"))
	defer notify.Close()
	if err := os.Chmod(filepath.Join(s.dir, "notify"), 0o777); err != nil {
		t.Fatal(err)
	}

	serve := []string{program, "serve", "-c", filepath.Join(s.dir, "lmtpd.toml")}
	s.cmd = exec.Command(serve[0], serve[1:]...)
	if s.noTmpfile {
		s.cmd = role("no-tmpfile", serve...)
	} else {
		s.cmd.Env = os.Environ()
	}
	s.cmd.Env = append(s.cmd.Env, "NOTIFY_SOCKET="+filepath.Join(s.dir, "notify"), "STATE_DIRECTORY="+state)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: mailUser, Gid: mailUser},
	}
	s.out = new(bytes.Buffer)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	notify.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			s.kill()
			t.Fatalf("lmtpd is not ready: %v\n%s", err, s.out)
		}
		if strings.Contains(string(buf[:n]), "READY=1") {
			break
		}
	}
	t.Cleanup(s.kill)
}

// kill ends lmtpd as a power cut would.
func (s *site) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// withoutUnnamedFiles becomes the command args, to which the kernel refuses
// O_TMPFILE as a file system does that has no unnamed files.
func withoutUnnamedFiles(args []string) error {
	runtime.LockOSThread()
	const number, flags = 0, 16 + 2*8 // in struct seccomp_data; the lower half of openat's third argument
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_OPENAT, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.O_TMPFILE &^ unix.O_DIRECTORY, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// client is an LMTP session.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func (s *site) dial() (*client, error) {
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(10 * patience))
	c := &client{conn, bufio.NewReader(conn)}
	for _, line := range []string{"", "LHLO client.example.net\r\n"} {
		if _, err := c.command(line, "2"); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return c, nil
}

func (c *client) command(line, want string) (string, error) {
	if _, err := io.WriteString(c.conn, line); err != nil {
		return "", err
	}
	r, err := c.reply()
	if err == nil && !strings.HasPrefix(r, want) {
		err = fmt.Errorf("%.60q: %s", line, r)
	}
	return r, err
}

func (c *client) reply() (string, error) {
	for {
		line, err := c.in.ReadString('\n')
		if err != nil || len(line) < 4 || line[3] != '-' {
			return strings.TrimSuffix(line, "\r\n"), err
		}
	}
}

// send runs one transaction and tells each reply as soon as it is read.
func (c *client) send(message, size int, users []int, replied func(i int, reply string)) error {
	if _, err := c.command("MAIL FROM:<"+sender+">\r\n", "250"); err != nil {
		return err
	}
	for _, u := range users {
		if _, err := c.command("RCPT TO:<"+userName(u)+domain+">\r\n", "250"); err != nil {
			return err
		}
	}
	if _, err := c.command("DATA\r\n", "354"); err != nil {
		return err
	}
	if _, err := c.conn.Write(append(asSent(content(message, size)), ".\r\n"...)); err != nil {
		return err
	}
	for i := range users {
		r, err := c.reply()
		if err != nil {
			return err
		}
		replied(i, r)
	}
	return nil
}
