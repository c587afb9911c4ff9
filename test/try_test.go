package test

import (
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// trial is a running `lmtpd try`.
type trial struct {
	*process
	cwd  string
	as   *syscall.Credential
	lmtp string
	smtp string
}

// newcomer is somebody without rights: nobody, or whoever runs the tests.
func newcomer() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

// startTry runs `lmtpd try` as a newcomer does, in a new empty directory.
func startTry(t *testing.T, args ...string) *trial {
	t.Helper()
	tr := &trial{cwd: tempDir(t), as: newcomer()}
	mkdir(t, tr.cwd, tr.as)
	tr.process = start(t, "lmtpd try", tr.command(program, append([]string{"try"}, args...)...))
	tr.lmtp = tr.stdout.await(t, `^ *LMTP +(/\S+)$`)[1]
	tr.smtp = tr.stdout.await(t, `^ *SMTP +(127\.0\.0\.1:\d+)$`)[1]
	tr.stdout.await(t, ` send --to `) // the last of the greeting
	return tr
}

// command runs a program as the newcomer.
func (tr *trial) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = tr.cwd
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tr.cwd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: tr.as, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// delivered waits for the line about a delivery and returns the file's name.
func (tr *trial) delivered(t *testing.T, to string) string {
	t.Helper()
	return tr.stdout.await(t, `^delivered +`+regexp.QuoteMeta(to)+` .* (/\S+)$`)[1]
}

// TestTry: nothing prepared, nothing configured, a message sent as the greeting
// says and found where the line says.
func TestTry(t *testing.T) {
	t.Parallel()
	tr := startTry(t)
	if want := filepath.Join(tr.cwd, "lmtpd-try", "lmtp.sock"); tr.lmtp != want {
		t.Errorf("LMTP on %s, want %s", tr.lmtp, want)
	}
	line := tr.stdout.await(t, `^ *(printf .* send --to .*)$`)[1]
	out, err := tr.command("sh", "-c", line).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "250 2.0.0 ") {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	file := tr.delivered(t, "bob@example.org")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(content), "Return-Path: <ann@example.org>\nDelivered-To: bob@example.org\nReceived: ") ||
		!strings.HasSuffix(string(content), "\nSubject: hello\n\nIt works.\n") {
		t.Errorf("%s:\n%s", file, content)
	}
	inbox := filepath.Join(tr.cwd, "lmtpd-try/mail/example.org/bob")
	if filepath.Dir(file) != inbox+"/new" {
		t.Errorf("delivered to %s, want %s/new", file, inbox)
	}
	oneMessage(t, inbox)

	if err := smtp.SendMail(tr.smtp, nil, "ann@example.org", []string{"carol@example.net"}, []byte(clientMessage)); err != nil {
		t.Errorf("SMTP: %v", err)
	}
	oneMessage(t, filepath.Dir(filepath.Dir(tr.delivered(t, "carol@example.net"))))

	// One line for each recipient, and no other.
	if n := len(tr.stdout.find(`^delivered `)); n != 2 {
		t.Errorf("%d lines for 2 deliveries", n)
	}
	tr.signal(t, os.Interrupt)
	if status := tr.wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if tr.stderr.count() != 0 {
		t.Errorf("on standard error:\n%s", tr.stderr)
	}
}

// TestTryAddresses: no address leads out of the directory.
func TestTryAddresses(t *testing.T) {
	t.Parallel()
	tr := startTry(t)
	before := tree(t, tr.cwd)
	c := dial(t, tr.lmtp)
	c.expect(t, "250", "LHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<>")
	for _, to := range []string{
		"../x@example.org", "..@example.org", ".@example.org", "a/b@example.org", `"../x"@example.org`, `"a/b"@example.org`,
		`"\.\."@example.org`, "x@..", "x@../y", "x@a/b", `""@example.org`, "+@example.org", "a\x00b@example.org", "",
		"\"a\x00b\"@example.org", strings.Repeat("x", 300) + "@example.org", "x@" + strings.Repeat("y", 300),
	} {
		if r := c.cmd(t, "RCPT TO:<"+to+">"); !strings.HasPrefix(r, "501 5.1.3 ") && !strings.HasPrefix(r, "500 5.") {
			t.Errorf("RCPT TO:<%q>: %q", to, r)
		}
	}
	c.expect(t, "503", "DATA")
	if after := tree(t, tr.cwd); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
}

// tree lists all names below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all.WriteString(path + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestTryDrain: Ctrl-C lets a message in progress finish; twice does not.
func TestTryDrain(t *testing.T) {
	t.Parallel()
	t.Run("once", func(t *testing.T) {
		t.Parallel()
		tr := startTry(t, "--smtp", "127.0.0.1:0")
		busy, waiting := open(t, tr.lmtp, "bob@example.org"), idle(t, tr.lmtp)
		tr.signal(t, os.Interrupt)
		if r := waiting.reply(t); !strings.HasPrefix(r, "421 4.3.2 ") {
			t.Errorf("idle session: %q", r)
		}
		waiting.end(t)
		busy.body(t, []byte("second half\r\n"))
		if r := busy.reply(t); !strings.HasPrefix(r, "250 2.0.0 ") {
			t.Errorf("message in progress: %q", r)
		}
		busy.reply(t)
		busy.conn.Close()
		if status := tr.wait(t); status != 0 {
			t.Errorf("exit status %d", status)
		}
		tr.delivered(t, "bob@example.org")
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		tr := startTry(t, "--smtp", "127.0.0.1:0")
		open(t, tr.lmtp, "bob@example.org")
		waiting := idle(t, tr.lmtp)
		tr.signal(t, os.Interrupt)
		waiting.reply(t)
		tr.signal(t, os.Interrupt)
		if status := tr.wait(t); status == 0 {
			t.Error("exit status 0 although a transaction was cut off")
		}
		mail := filepath.Join(tr.cwd, "lmtpd-try", "mail")
		if names := tree(t, mail); names != mail+"\n" {
			t.Errorf("left behind:\n%s", names)
		}
	})
}

// TestTryTwice: a second one does not take the socket from the first.
func TestTryTwice(t *testing.T) {
	t.Parallel()
	tr := startTry(t, "--smtp", "127.0.0.1:0")
	out, err := tr.command(program, "try", "--smtp", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), tr.lmtp) {
		t.Errorf("%v: %s", err, out)
	}
	idle(t, tr.lmtp).expect(t, "221", "QUIT")
}

// TestTryReadOnly: where the current directory is not ours, another one serves.
func TestTryReadOnly(t *testing.T) {
	t.Parallel()
	if newcomer() == nil {
		t.Skip("not root: every new directory is one's own")
	}
	tr := &trial{cwd: tempDir(t), as: newcomer()} // root's
	temp := filepath.Join(tr.cwd, "tmp")
	mkdir(t, temp, tr.as)
	cmd := tr.command(program, "try", "--smtp", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	tr.process = start(t, "lmtpd try", cmd)
	sock := tr.stdout.await(t, `^ *LMTP +(/\S+)$`)[1]
	if !strings.HasPrefix(sock, temp+"/") {
		t.Errorf("LMTP on %s", sock)
	}
	idle(t, sock).expect(t, "221", "QUIT")

	out, err := tr.command(program, "try", "--smtp", "", "--dir", tr.cwd+"/named").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 78 || !strings.Contains(string(out), "--dir") {
		t.Errorf("%v: %s", err, out)
	}
}
