package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// quotaSite is a mailbox that lmtpd delivers to and Dovecot reads and writes, each
// with the limits that its own configuration sets, both as the owner of the mail.
type quotaSite struct {
	dir, box, sock string
	owner          *syscall.Credential // nil: the test's own account
	agent          *agent
}

const quotaOctets, quotaMessages = 20000, 12

func startQuotaSite(t *testing.T) *quotaSite {
	t.Helper()
	s := &quotaSite{dir: tempDir(t)}
	if os.Getuid() == 0 {
		s.owner = &syscall.Credential{Uid: 64101, Gid: 64201}
	}
	home := filepath.Join(s.dir, "home")
	for _, dir := range []string{home, filepath.Join(s.dir, "run"), filepath.Join(s.dir, "sockets")} {
		mkdir(t, dir, s.owner)
	}
	s.box, s.sock = filepath.Join(home, "Maildir"), filepath.Join(s.dir, "sockets/lmtp.sock")
	writeFile(t, filepath.Join(s.dir, "users"), "bob@example.org:::::"+home+"::\n")
	writeFile(t, filepath.Join(s.dir, "dovecot.conf"), fmt.Sprintf(`
base_dir = %[1]s/run
ssl = no
mail_location = maildir:~/Maildir
mail_plugins = quota
stats_writer_socket_path =
first_valid_uid = 1
protocol imap {
  mail_plugins = quota imap_quota
}
plugin {
  quota = maildir:User quota
  quota_rule = *:bytes=%[2]d:messages=%[3]d
}
namespace inbox {
  inbox = yes
  separator = .
}
`, s.dir, quotaOctets, quotaMessages))
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, as: s.owner, config: fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
name = "lmtp"
address = "unix:%[1]s"
mode = "0666"
[mailbox]
quota = %[2]d
quota_messages = %[3]d
create_folders = true
[[userdb]]
type = "passwd-file"
path = "%[4]s/users"
`, s.sock, quotaOctets, quotaMessages, s.dir)})
	return s
}

// as runs a program as the owner of the mailbox.
func (s *quotaSite) as(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(s.box), "USER=bob"}
	cmd.Dir, cmd.Stdin = s.dir, strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.owner, Pdeathsig: syscall.SIGKILL}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, errs.String())
	}
	return string(out)
}

func (s *quotaSite) doveadm(t *testing.T, args ...string) string {
	t.Helper()
	return s.as(t, "", need(t, "doveadm")[0], append([]string{"-c", filepath.Join(s.dir, "dovecot.conf")}, args...)...)
}

// imap talks to Dovecot's IMAP server, which is started for this one session and
// believes who it is started as.
func (s *quotaSite) imap(t *testing.T, commands ...string) string {
	t.Helper()
	script := ""
	for i, c := range append(commands, "LOGOUT") {
		script += fmt.Sprintf("a%d %s\r\n", i+1, c)
	}
	out := s.as(t, script, "/usr/lib/dovecot/imap", "-c", filepath.Join(s.dir, "dovecot.conf"))
	for i := range commands {
		if !strings.Contains(out, fmt.Sprintf("\na%d OK ", i+1)) {
			t.Fatalf("%q:\n%s", commands[i], out)
		}
	}
	return out
}

// agree checks that both say what there is: octets and messages on disk.
func (s *quotaSite) agree(t *testing.T, when string, wantMessages int) {
	t.Helper()
	var octets, count int64
	err := filepath.WalkDir(s.box, func(path string, e fs.DirEntry, err error) error {
		if dir := filepath.Base(filepath.Dir(path)); err == nil && e.Type().IsRegular() && (dir == "new" || dir == "cur") {
			info, err := e.Info()
			if err != nil {
				return err
			}
			octets += info.Size()
			count++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if count != int64(wantMessages) {
		t.Errorf("%s: %d messages on disk, want %d", when, count, wantMessages)
	}
	before := readFile(t, filepath.Join(s.box, "maildirsize"))
	var ours struct {
		Octets, Messages int64
		Counted          bool
	}
	line := s.as(t, "", program, "quota", "get", "-c", s.agent.config, "--json", "bob@example.org")
	if err := json.Unmarshal([]byte(line), &ours); err != nil || ours.Octets != octets || ours.Messages != count || ours.Counted {
		t.Errorf("%s: lmtpd says %s (%v); on disk are %d octets, %d messages", when, line, err, octets, count)
	}
	theirs := s.doveadm(t, "-f", "tab", "quota", "get")
	for _, want := range []string{
		fmt.Sprintf("\tSTORAGE\t%d\t%d\t", kibibytes(octets), kibibytes(quotaOctets)),
		fmt.Sprintf("\tMESSAGE\t%d\t%d\t", count, quotaMessages),
	} {
		if theirs = strings.ReplaceAll(theirs, "User quota", ""); !strings.Contains(theirs, want) {
			t.Errorf("%s: doveadm says\n%s\nno %q", when, theirs, want)
		}
	}
	wantIMAP := fmt.Sprintf(`* QUOTA "User quota" (STORAGE %d %d MESSAGE %d %d)`, kibibytes(octets), kibibytes(quotaOctets), count, quotaMessages)
	if out := s.imap(t, "GETQUOTAROOT INBOX"); !strings.Contains(out, wantIMAP) {
		t.Errorf("%s: IMAP says\n%s\nwant %s", when, out, wantIMAP)
	}
	if after := readFile(t, filepath.Join(s.box, "maildirsize")); after != before {
		t.Errorf("%s: asking has changed maildirsize from\n%sto\n%s", when, before, after)
	}
}

// kibibytes are the units of STORAGE (RFC 9208 section 5.1), which Dovecot rounds up to.
func kibibytes(octets int64) int64 { return (octets + 1023) / 1024 }

// TestQuotaWithDovecot: what lmtpd notes in maildirsize is what Dovecot reads, and the
// other way round: mail that comes, is appended, deleted, counted anew by either.
func TestQuotaWithDovecot(t *testing.T) {
	t.Parallel()
	need(t, "doveadm")
	if _, err := os.Stat("/usr/lib/dovecot/modules/lib11_imap_quota_plugin.so"); err != nil {
		if require {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s := startQuotaSite(t)
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	send := func(to, want string, lines int) {
		t.Helper()
		message := []byte(header + "\r\n" + strings.Repeat("0123456789abcde\r\n", lines))
		if r := c.send(t, "", "", []string{to}, message, 1); !strings.HasPrefix(r[0], want) {
			t.Errorf("%s: %q, want %s", to, r, want)
		}
	}
	send("bob@example.org", "250 2.0.0", 10)
	send("bob@example.org", "250 2.0.0", 100)
	send("bob+lists@example.org", "250 2.0.0", 5)
	s.agree(t, "delivered by lmtpd", 3)

	s.imap(t, "APPEND INBOX {17+}\r\nSubject: y\r\n\r\nz\r\n")
	s.agree(t, "appended by Dovecot", 4)
	send("bob@example.org", "250 2.0.0", 20)
	s.agree(t, "delivered after that", 5)

	s.imap(t, "SELECT INBOX", `STORE 1:2 +FLAGS (\Deleted)`, "EXPUNGE")
	s.agree(t, "deleted by Dovecot", 3)
	s.imap(t, "SELECT INBOX", "MOVE 1 lists")
	s.agree(t, "moved by Dovecot", 3)

	// Full for both: lmtpd refuses, and so does Dovecot; room that Dovecot makes is
	// room for lmtpd.
	send("bob@example.org", "250 2.0.0", 1000)
	s.agree(t, "nearly full", 4)
	send("bob@example.org", "452 4.2.2", 200)
	c.expect(t, "250", "MAIL FROM:<> SIZE=4000")
	c.expect(t, "452 4.2.2", "RCPT TO:<bob@example.org>")
	c.expect(t, "250", "RSET")
	big := strings.Repeat("x", 4000)
	out := s.as(t, fmt.Sprintf("a APPEND INBOX {%d+}\r\nS: y\r\n\r\n%s\r\nb LOGOUT\r\n", 8+len(big), big),
		"/usr/lib/dovecot/imap", "-c", filepath.Join(s.dir, "dovecot.conf"))
	if !strings.Contains(out, "a NO [OVERQUOTA]") {
		t.Errorf("Dovecot takes it:\n%s", out)
	}
	s.agree(t, "full", 4)
	s.imap(t, "SELECT INBOX", `STORE 1:* +FLAGS (\Deleted)`, "EXPUNGE")
	s.agree(t, "emptied by Dovecot", 2)
	send("bob@example.org", "250 2.0.0", 200)
	s.agree(t, "room for lmtpd", 3)

	// Each counts anew what the other goes on with.
	sizes := filepath.Join(s.box, "maildirsize")
	writeFile(t, sizes, "20000S,12C\n19999 11\n")
	s.doveadm(t, "quota", "recalc")
	s.agree(t, "counted by Dovecot", 3)
	send("bob@example.org", "250 2.0.0", 1)
	s.agree(t, "delivered after that", 4)
	writeFile(t, sizes, "20000S,12C\n19999 11\n")
	s.as(t, "", program, "quota", "recalc", "-c", s.agent.config, "bob@example.org")
	s.agree(t, "counted by lmtpd", 4)
	s.imap(t, "APPEND INBOX {17+}\r\nSubject: y\r\n\r\nz\r\n")
	s.agree(t, "appended after that", 5)
	c.expect(t, "221", "QUIT")
	s.agent.stop(t)
}
