package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const postfixMain = `compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/postfix.log
maillog_file_prefixes = /
multi_instance_enable = no
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mta.example.org
mydomain = example.org
mydestination =
alias_maps =
alias_database =
smtpd_peername_lookup = no
message_size_limit = 67108864
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_client_connection_count_limit = 0
# Otherwise a cleanup that is ahead of the deliveries sleeps for a second.
in_flow_delay = 0
virtual_mailbox_domains = example.org
virtual_mailbox_maps = texthash:DIR/mailboxes
virtual_mailbox_base = DIR/home
virtual_uid_maps = static:UID
virtual_gid_maps = static:UID
virtual_transport = TRANSPORT
# As in contrib/postfix.
lmtpd_destination_recipient_limit = 100
`

const postfixMaster = `ADDR      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       -       smtp
lmtpd     unix  -       -       n       -       -       lmtp
  -o lmtp_line_length_limit=0
  -o lmtp_send_xforward_command=yes
  -o lmtp_connection_cache_on_demand=no
  flags=X
virtual   unix  -       n       n       -       -       virtual
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
`

// startPostfix runs a private Postfix that gives all mail to this transport.
func startPostfix(b *bench, s *site, transport string) (*running, error) {
	account, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"postfix", "queue", "data"} {
		if err := os.Mkdir(s.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chown(s.path("data"), uid, 0); err != nil {
		return nil, err
	}
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	var boxes strings.Builder
	for i := range users {
		fmt.Fprintf(&boxes, "%s %s/Maildir/\n", userAddress(i), userName(i))
	}
	put := strings.NewReplacer("DIR", s.dir, "UID", fmt.Sprint(mailUser.uid), "TRANSPORT", transport, "ADDR", addr)
	settled := time.Now().Add(-time.Hour) // Postfix waits for a file of the last seconds
	for name, content := range map[string]string{
		"postfix/main.cf": postfixMain, "postfix/master.cf": postfixMaster, "mailboxes": boxes.String(),
	} {
		path, err := s.write(name, put.Replace(content))
		if err != nil {
			return nil, err
		}
		if err := os.Chtimes(path, settled, settled); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(b.postfix, "-c", s.path("postfix"), "start-fg")
	return b.launch("postfix", s, cmd, &running{addr: addr, spool: s.path("queue")})
}

// startVirtual: Postfix delivers itself.
func startVirtual(b *bench, s *site) (*running, error) { return startPostfix(b, s, "virtual") }

// startRelayed: Postfix hands mail on to lmtpd. Both count as one server.
func startRelayed(b *bench, s *site) (*running, error) {
	behind, err := startLMTPD("")(b, s)
	if err != nil {
		return nil, err
	}
	r, err := startPostfix(b, s, "lmtpd:unix:"+behind.addr)
	if err != nil {
		behind.stop()
		return nil, err
	}
	r.behind = behind
	return r, nil
}

// stop ends the server. Only its own process id ends Postfix's master.
func (r *running) stop() error {
	if r.spool != "" {
		b, err := os.ReadFile(filepath.Join(r.spool, "pid", "master.pid"))
		if err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}
	}
	err := r.process.stop()
	if r.behind != nil {
		err = errors.Join(err, r.behind.stop())
	}
	return err
}
