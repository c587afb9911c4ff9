package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// eximRoot is where setup.sh unpacks Exim: as a package it would replace Postfix.
const eximRoot = "/var/cache/lmtpd-test/exim"

// eximUser is the user that Debian's Exim becomes.
const eximUser = "Debian-exim"

// exim is a private Exim: configuration, spool and log of its own, SMTP on a
// free port of loopback.
type exim struct {
	addr   string
	log    *lines   // its mainlog
	within []string // command that lays Exim and its configuration over the machine's
}

// eximFrame is around contrib's snippets what an administrator has already.
// DIR is the directory of the test.
const eximFrame = `
primary_hostname = mta.example.org
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
log_selector = +smtp_connection +pid
local_interfaces = 127.0.0.1
keep_environment =
timezone = UTC
tls_advertise_hosts =
acl_smtp_rcpt = acl_check_rcpt
acl_smtp_data = acl_check_data
MAIN
begin acl
acl_check_data:
  accept
acl_check_rcpt:
ACL
  require
    verify = recipient
  accept
    domains = +lmtpd_domains
begin routers
ROUTERS
begin transports
TRANSPORTS
begin retry
RETRY
*  *  F,2h,15m; G,16h,1h,1.5; F,4d,6h
`

// contribExim is contrib for contrib/exim.
func contribExim(t *testing.T, name string, places ...string) string {
	t.Helper()
	return contrib(t, filepath.Join("../exim", name), places...)
}

// eximWithin lays the unpacked Exim over /usr/sbin, as it calls itself by that
// path, and dir/etc over /etc, as it trusts no configuration elsewhere.
func eximWithin(t *testing.T, dir string, acc accounts) []string {
	t.Helper()
	needRoot(t, "lay Exim over /usr/sbin")
	unshare := need(t, "unshare")[0]
	if _, err := os.Stat(filepath.Join(eximRoot, "usr/sbin/exim4")); err != nil {
		if require {
			t.Fatalf("no Exim: %v, although LMTPD_TEST_REQUIRE=1; test/setup.sh unpacks it", err)
		}
		t.Skipf("no Exim: %v; test/setup.sh unpacks it", err)
	}
	mkdir(t, filepath.Join(dir, "etc/exim4"), nil)
	const script = `mount -t overlay overlay -o "lowerdir=$1/usr/sbin:/usr/sbin" /usr/sbin &&
		mount -t overlay overlay -o "lowerdir=$2:/etc" /etc && shift 2 && exec "$@"`
	within := []string{unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh", eximRoot, filepath.Join(dir, "etc")}
	if out, err := exec.Command(within[0], append(within[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("overlays are not possible here: %v: %s", err, out)
	}
	return append(within, acc.within...)
}

// startExim runs Exim's daemon until the test ends. Pairs of a word of
// eximFrame and what stands there. id is eximUser's.
func startExim(t *testing.T, dir string, within []string, id int, snippets ...string) *exim {
	t.Helper()
	x := &exim{addr: freePort(t), within: within}
	owner := &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}
	mkdir(t, filepath.Join(dir, "spool"), owner)
	mkdir(t, filepath.Join(dir, "log"), owner)
	config := strings.NewReplacer(append(snippets, "DIR", dir)...).Replace(eximFrame)
	writeFile(t, filepath.Join(dir, "etc/exim4/exim4.conf"), config)
	mainlog := filepath.Join(dir, "log/mainlog")
	writeFile(t, mainlog, "")
	if err := os.Chown(mainlog, id, id); err != nil {
		t.Fatal(err)
	}
	tail := exec.Command(need(t, "tail")[0], "-n", "+1", "-f", mainlog)
	tail.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	x.log = start(t, "exim's log", tail).stdout

	// The end of standard input stops it: also when the test run is killed. The
	// shell is first in a process namespace, so that all that Exim has started
	// ends with it, and nothing writes to the directory any more.
	const script = `"$@" </dev/null & read -r _`
	args := []string{"--pid", "--fork", "sh", "-c", script, "sh"}
	args = append(append(args, within...), "/usr/sbin/exim4", "-bdf", "-oX", strings.ReplaceAll(x.addr, ":", "."))
	daemon := exec.Command(need(t, "unshare")[0], args...)
	stdin, err := daemon.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, "exim", daemon)
	t.Cleanup(func() {
		stdin.Close()
		p.wait(t)
	})
	x.log.await(t, `daemon started`)
	return x
}

// command is a command in the view that has Exim in it.
func (x *exim) command(args ...string) *exec.Cmd {
	all := append(x.within[:len(x.within):len(x.within)], args...)
	return exec.Command(all[0], all[1:]...)
}

// submit hands a message to Exim over SMTP and returns its id.
func (x *exim) submit(t *testing.T, from string, to []string, message []byte) string {
	t.Helper()
	c := dial(t, x.addr)
	c.expect(t, "250", "EHLO client.example.net")
	r := c.send(t, from, "", to, message, 1)[0]
	c.expect(t, "221", "QUIT")
	return eximID(t, r)
}

func eximID(t *testing.T, reply string) string {
	t.Helper()
	m := regexp.MustCompile(`^250 OK id=(\S+)`).FindStringSubmatch(reply)
	if m == nil {
		t.Fatalf("Exim answered %q", reply)
	}
	return m[1]
}

// gone waits until Exim is done with a message.
func (x *exim) gone(t *testing.T, id string) {
	t.Helper()
	x.log.await(t, id+` Completed$`)
}

// deliver tries to deliver a message now, whatever its retry times say.
func (x *exim) deliver(t *testing.T, id string) {
	t.Helper()
	cmd := x.command("/usr/sbin/exim4", "-M", id)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// inject hands a message to Exim as a program of the machine does, past all
// ACLs, and returns when Exim has tried to deliver it.
func (x *exim) inject(t *testing.T, from string, to ...string) {
	t.Helper()
	cmd := x.command(append([]string{"/usr/sbin/exim4", "-odf", "-f", from}, to...)...)
	cmd.Stdin = strings.NewReader(header + "\r\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// received is a pattern of the line that Exim puts before a message.
func (x *exim) received(id string, to ...string) string {
	pattern := `Received: from \[127\.0\.0\.1\] \(helo=client\.example\.net\)\n\tby mta\.example\.org with esmtp \(Exim [0-9.]+\)\n` +
		`\t\(envelope-from <[^>]*>\)\n\tid ` + id
	if len(to) == 1 {
		pattern += `\n\tfor ` + regexp.QuoteMeta(to[0])
	}
	return pattern + `;\n\t` + date + "\n"
}

// eximSite is Exim and lmtpd as contrib/exim describes them.
type eximSite struct {
	*exim
	agent *agent
	dir   string
	home  func(user string) string
}

func (s *eximSite) maildir(user string) string { return filepath.Join(s.home(user), "Maildir") }

// trace: h of a message that came through Exim to these recipients.
func (s *eximSite) trace(id, from string, to ...string) trace {
	return trace{sender: from, recipient: to[0], helo: "mta.example.org", with: "LMTP", then: s.received(id, to...)}
}

// eximSnippets are put before those that every site has.
type eximSnippets struct{ routers, transports string }

// startEximVirtual: users are local parts of example.org; transport are pairs of a
// text of the file transport and what stands there instead.
func startEximVirtual(t *testing.T, users []string, transport ...string) *eximSite {
	t.Helper()
	return startEximVirtualWith(t, users, eximSnippets{}, transport...)
}

func startEximVirtualWith(t *testing.T, users []string, more eximSnippets, transport ...string) *eximSite {
	t.Helper()
	dir := tempDir(t)
	acc := newAccounts(t, dir, eximUser)
	s := &eximSite{dir: dir, home: func(user string) string { return filepath.Join(dir, "mail", user) }}
	within := eximWithin(t, dir, acc)
	owner := &syscall.Credential{Uid: 5000, Gid: 5000}
	run := filepath.Join(dir, "run")
	mkdir(t, run, owner)
	var table strings.Builder
	for _, u := range users {
		mkdir(t, s.home(u), owner)
		fmt.Fprintf(&table, "%s@example.org:::::%s::\n", u, s.home(u))
	}
	writeFile(t, filepath.Join(dir, "users"), table.String())
	verify := freePort(t)
	_, port, _ := strings.Cut(verify, ":")
	s.agent = startLMTPD(t, agentOptions{
		dir: dir, as: owner,
		config: contribExim(t, "lmtpd.virtual.toml", "/run/lmtpd", run, "/etc/lmtpd", dir, "127.0.0.1:2424", verify),
		within: append(within[:len(within):len(within)], "setpriv", "--reuid=5000", "--regid=5000", fmt.Sprint("--groups=", firstAccount)),
	})
	s.exim = startExim(t, dir, within, firstAccount,
		"MAIN", contribExim(t, "main"),
		"ACL", contribExim(t, "acl"),
		"ROUTERS", more.routers+contribExim(t, "router.virtual"),
		"TRANSPORTS", more.transports+contribExim(t, "transport", append([]string{"/run/lmtpd", run}, transport...)...)+
			contribExim(t, "transport.verify", "2424", port),
		"RETRY", contribExim(t, "retry"))
	return s
}

// startEximLocal is Exim and lmtpd as contrib/exim describes them for login
// accounts with these names.
func startEximLocal(t *testing.T, names []string, more eximSnippets) *eximSite {
	t.Helper()
	dir := tempDir(t)
	acc := newAccounts(t, dir, append(names[:len(names):len(names)], eximUser)...)
	id := firstAccount + len(names)
	s := &eximSite{dir: dir, home: acc.home}
	within := eximWithin(t, dir, acc)
	run := filepath.Join(dir, "run")
	mkdir(t, run, nil)
	if err := os.Chown(run, 5000, 5000); err != nil {
		t.Fatal(err)
	}
	s.agent = startLMTPD(t, agentOptions{
		dir: dir, as: &syscall.Credential{Uid: 5000, Gid: 5000},
		config: contribExim(t, "lmtpd.local.toml", "/run/lmtpd", run),
		within: append(within[:len(within):len(within)], "setpriv", "--reuid=5000", "--regid=5000", fmt.Sprint("--groups=", id),
			"--inh-caps=-all,+setuid,+setgid", "--ambient-caps=-all,+setuid,+setgid",
			"--bounding-set=-all,+setuid,+setgid", "--no-new-privs"),
	})
	s.exim = startExim(t, dir, within, id,
		"MAIN", contribExim(t, "main"),
		"ACL", "",
		"ROUTERS", more.routers+contribExim(t, "router.local"),
		"TRANSPORTS", contribExim(t, "transport", "/run/lmtpd", run)+more.transports,
		"RETRY", contribExim(t, "retry"))
	return s
}
