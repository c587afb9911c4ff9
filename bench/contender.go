package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// contender is something that can be measured.
type contender struct {
	name    string // in tables
	perUser bool   // each user owns his mail
	start   func(b *bench, s *site) (*running, error)
}

// running is a contender's server in operation.
type running struct {
	*process
	addr string
	lmtp bool

	spool  string   // Postfix: where messages wait; "" if replies mean delivery
	behind *running // Postfix: what it hands mail on to
}

// cpu and memory are those of all its processes.
func (r *running) cpu() time.Duration {
	d := r.group.cpu()
	if r.behind != nil {
		d += r.behind.cpu()
	}
	return d
}

func (r *running) memory() (pss int64, processes int) {
	pss, processes = r.group.memory()
	if r.behind != nil {
		p, n := r.behind.memory()
		pss, processes = pss+p, processes+n
	}
	return pss, processes
}

// open begins a session with the server.
func (r *running) open(m *message) (sender, error) {
	c, err := dial(r.addr, r.lmtp)
	if err != nil {
		return nil, err
	}
	return &networkSender{client: c, message: m}, nil
}

const lmtpdConfig = `hostname = "mx.example.org"
state_directory = %q

[[listen]]
name = "lmtp"
address = %q
mode = "0666"

[[userdb]]
type = "passwd-file"
path = %q

[mailbox]
path = "~/Maildir"
%s`

// startLMTPD runs the lmtpd of this tree as its package does: not as root, and
// able to change user only where users own their mail.
func startLMTPD(extra string) func(b *bench, s *site) (*running, error) {
	return func(b *bench, s *site) (*running, error) {
		state, sock := s.path("state"), s.path("run", "lmtp.sock")
		if err := os.Mkdir(state, 0o700); err != nil {
			return nil, err
		}
		if err := s.give(state, mailUser); err != nil {
			return nil, err
		}
		table, err := s.write("users", s.passwd(s.perUser))
		if err != nil {
			return nil, err
		}
		config, err := s.write("lmtpd.toml", fmt.Sprintf(lmtpdConfig, state, sock, table, extra+b.mailbox+"\n"))
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(b.lmtpd, "serve", "-c", config)
		cmd.Dir = s.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		if s.root {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(mailUser.uid), Gid: uint32(mailUser.gid)}
		}
		if s.perUser {
			const setgid, setuid = 6, 7 // capabilities(7)
			cmd.SysProcAttr.AmbientCaps = []uintptr{setgid, setuid}
		}
		return b.launch("lmtpd", s, cmd, &running{addr: sock, lmtp: true})
	}
}

// takesLinks reports whether the lmtpd at hand knows single_instance.
func (b *bench) takesLinks(dir string) (bool, error) {
	config := filepath.Join(dir, "links.toml")
	text := fmt.Sprintf(lmtpdConfig, dir, filepath.Join(dir, "sock"), "/dev/null", "single_instance = true\n")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return false, err
	}
	out, err := exec.Command(b.lmtpd, "check", "-c", config).CombinedOutput()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		return false, err
	}
	// Other complaints, as about a directory, are no matter here.
	return !strings.Contains(string(out), "single_instance"), nil
}

const dovecotConfig = `base_dir = %[1]s/run/dovecot
state_dir = %[1]s/state
log_path = /dev/stderr
protocols = lmtp
ssl = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
# Without one the auth process does not start; nobody logs in.
passdb {
  driver = passwd-file
  args = username_format=%%u %[2]s
}
userdb {
  driver = passwd-file
  args = username_format=%%u %[2]s
}
service lmtp {
  unix_listener %[1]s/run/lmtp.sock {
    mode = 0666
  }
}
`

// startDovecot runs Debian's Dovecot with nothing but LMTP.
func startDovecot(b *bench, s *site) (*running, error) {
	if err := os.Mkdir(s.path("state"), 0o755); err != nil {
		return nil, err
	}
	table, err := s.write("users", s.passwd(true))
	if err != nil {
		return nil, err
	}
	config, err := s.write("dovecot.conf", fmt.Sprintf(dovecotConfig, s.dir, table))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(b.dovecot, "-F", "-c", config)
	return b.launch("dovecot", s, cmd, &running{addr: s.path("run", "lmtp.sock"), lmtp: true})
}

// launch starts a server and waits until it serves.
func (b *bench) launch(name string, s *site, cmd *exec.Cmd, r *running) (*running, error) {
	p, err := start(name, filepath.Join(s.dir, name+".out"), cmd)
	if err != nil {
		return nil, err
	}
	r.process = p
	if err := p.await(r.addr); err != nil {
		p.stop()
		return nil, err
	}
	return r, nil
}

// freePort gives an address that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
