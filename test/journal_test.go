package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestJournal: a recipient is found in the real journal by each of its fields.
func TestJournal(t *testing.T) {
	t.Parallel()
	needRoot(t, "mount")
	programs := need(t, "unshare", "setpriv", "journalctl")
	for _, file := range []string{"/lib/systemd/systemd-journald", "/etc/machine-id"} {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			t.Skipf("no %s here", file)
		}
	}
	script, err := filepath.Abs("testdata/with-journal.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	journal, home := filepath.Join(dir, "journal"), filepath.Join(dir, "mail", "user")
	mkdir(t, journal, nil)
	mkdir(t, home, nil)
	writeFile(t, filepath.Join(dir, "users"), fmt.Sprintf("user@example.org:::::%s::\n", home))
	a := startLMTPD(t, agentOptions{
		dir:    dir,
		within: []string{programs[0], "-m", "--propagation", "private", "sh", script, journal},
		config: fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
address = "unix:%[1]s/lmtp.sock"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
[log]
target = "journal"
`, dir)})
	c := dial(t, filepath.Join(dir, "lmtp.sock"))
	c.expect(t, "250", "LHLO client.example.net")
	c.expect(t, "250", "XFORWARD IDENT=4XyZ1b2C3dz")
	c.send(t, "sender@example.net", "", []string{"user@example.org"}, []byte("Message-ID: <\x1b[2J\nPRIORITY=0@example.net>\r\n\r\nx\r\n"), 1)

	follow := exec.Command(programs[2], "--directory", journal, "-f", "-n", "all", "-o", "json",
		"SYSLOG_IDENTIFIER=lmtpd", "LMTPD_QUEUE_ID=4XyZ1b2C3dz", "LMTPD_TO=user@example.org", "LMTPD_STATUS=delivered", "LMTPD_CODE=250")
	follow.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	line := start(t, "journalctl", follow).stdout.await(t, `.*"MESSAGE".*`)[0]
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	for name, want := range map[string]string{
		"PRIORITY": "6", "LMTPD_FROM": "sender@example.net", "LMTPD_MAILBOX": "user@example.org", "LMTPD_TRANSPORT": "maildir",
		"LMTPD_MESSAGE_ID": `<\x1b[2J`, "LMTPD_ENHANCED": "2.0.0", "LMTPD_DUPLICATE": "false",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %s", name, got[name], want)
		}
	}
	if pid := fmt.Sprint(a.cmd.Process.Pid); got["_PID"] != pid {
		t.Errorf("_PID is %v, want %s", got["_PID"], pid)
	}
	if a.stderr.count() > 0 {
		t.Errorf("standard error: %s", a.stderr)
	}
}
