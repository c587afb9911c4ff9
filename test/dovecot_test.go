package test

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mailOwner owns all mail where mailbox readers come in: they run as that user too.
// It is nobody, since mutt wants an account that exists.
var mailOwner = &syscall.Credential{Uid: 65534, Gid: 65534}

// dovecot is an IMAP server over the mailboxes that lmtpd writes to.
type dovecot struct {
	*process
	doveadmPath, config string
	host, port          string
}

// DIR holds the file users, which lmtpd reads as well.
const dovecotConfig = `base_dir = DIR/dovecot
state_dir = DIR/dovecot-state
log_path = /dev/stderr
protocols = imap
listen = HOST
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1000
mail_location = maildir:~/Maildir
mail_plugins = quota
namespace inbox {
  inbox = yes
  separator = /
}
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=100M:messages=40
}
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = passwd-file
  args = username_format=%u DIR/users
}
service imap-login {
  inet_listener imap {
    port = PORT
  }
  inet_listener imaps {
    port = 0
  }
}
`

// startDovecot serves the users of s; everybody's password is "secret".
func startDovecot(t *testing.T, s *plainSite) *dovecot {
	t.Helper()
	needRoot(t, "start Dovecot")
	paths := need(t, "dovecot", "doveadm", "/usr/lib/dovecot/imap")
	host, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	d := &dovecot{doveadmPath: paths[1], config: filepath.Join(s.dir, "dovecot.conf"), host: host, port: port}
	mkdir(t, filepath.Join(s.dir, "dovecot-state"), nil)
	writeFile(t, d.config, strings.NewReplacer("DIR", s.dir, "HOST", host, "PORT", port).Replace(dovecotConfig))
	cmd := exec.Command(paths[0], "-F", "-c", d.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	d.process = start(t, "dovecot", cmd)
	t.Cleanup(func() {
		d.signal(t, syscall.SIGTERM)
		d.wait(t)
	})
	d.stderr.await(t, "starting up for imap")
	return d
}

// doveadm runs one command of doveadm's.
func (d *dovecot) doveadm(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "", d.doveadmPath, append([]string{"-c", d.config}, args...)...)
}

// startReadSite is startPlainSite for readers: all mail belongs to mailOwner, the daemon
// runs as that user, and options are lines of its configuration.
func startReadSite(t *testing.T, options string, users ...string) *plainSite {
	t.Helper()
	needRoot(t, "run programs as the owner of the mail")
	s := &plainSite{dir: tempDir(t)}
	run := filepath.Join(s.dir, "run")
	mkdir(t, run, mailOwner)
	s.sock = filepath.Join(run, "lmtp.sock")
	var table strings.Builder
	for _, u := range users {
		mkdir(t, s.home(u), mailOwner)
		fmt.Fprintf(&table, "%s@example.org::%d:%d::%s::\n", u, mailOwner.Uid, mailOwner.Gid, s.home(u))
		makeMaildir(t, s.maildir(u), mailOwner)
	}
	writeFile(t, filepath.Join(s.dir, "users"), table.String())
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, as: mailOwner, config: fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
name = "lmtp"
address = "unix:%s"
[[userdb]]
type = "passwd-file"
path = "%s/users"
[log]
level = "warn"
%s`, s.sock, s.dir, options)})
	return s
}
