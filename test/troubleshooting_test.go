package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// trouble is a section of lmtpd-troubleshooting(7): what its lines are when they are
// provoked.
type trouble struct {
	heading string
	provoke func(t *testing.T) string
}

// shown are the lines that a section of the page shows, each as a pattern: "..." in it
// stands for anything.
func shown(t *testing.T, page, heading string) (patterns []*regexp.Regexp) {
	t.Helper()
	_, text, ok := strings.Cut(page, "\n.Ss "+heading+"\n")
	if !ok {
		t.Fatalf("no section %q", heading)
	}
	text, _, _ = strings.Cut(text, "\n.Ss ")
	for _, m := range regexp.MustCompile(`(?ms)^\.Bd -literal -offset 2n\n(.*?)\n\.Ed$`).FindAllStringSubmatch(text, -1) {
		var words []string
		for word := range strings.FieldsSeq(strings.ReplaceAll(m[1], `\&`, "")) {
			words = append(words, strings.ReplaceAll(regexp.QuoteMeta(word), `\.\.\.`, `.*`))
		}
		patterns = append(patterns, regexp.MustCompile(strings.Join(words, " ")))
	}
	if len(patterns) == 0 {
		t.Errorf("%s: no log line", heading)
	}
	return patterns
}

// TestTroubleshooting: each log line that lmtpd-troubleshooting(7) shows is one that
// is really written, and the command it names says why.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	page := readFile(t, "../cmd/lmtpd/man/lmtpd-troubleshooting.7")
	all := troubles()
	for _, c := range all {
		t.Run(c.heading, func(t *testing.T) {
			t.Parallel()
			said := c.provoke(t)
			for _, pattern := range shown(t, page, c.heading) {
				if !pattern.MatchString(said) {
					t.Errorf("the page shows\n%s\nand this was written:\n%s", pattern, said)
				}
			}
		})
	}
	for _, m := range regexp.MustCompile(`(?m)^\.Ss (.*)$`).FindAllStringSubmatch(page, -1) {
		known := false
		for _, c := range all {
			known = known || c.heading == m[1]
		}
		if !known {
			t.Errorf("nothing provokes what is below %q", m[1])
		}
	}
}

// ward is a directory with bob, uid 1001 if the test is root, in a user file. What is said of it is as if
// it were the machine's own root.
type ward struct {
	t      *testing.T
	dir    string
	within []string // command that what follows runs through
}

func newWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{t: t, dir: tempDir(t)}
	mkdir(t, filepath.Join(w.dir, "state"), nil)
	uid, gid, owner := 1001, 1001, &syscall.Credential{Uid: 1001, Gid: 1001}
	if os.Getuid() != 0 {
		uid, gid, owner = os.Getuid(), os.Getgid(), nil
	}
	mkdir(t, filepath.Join(w.dir, "home/bob"), owner)
	writeFile(t, filepath.Join(w.dir, "users"), fmt.Sprintf("bob@example.org::%d:%d::%s/home/bob::\n", uid, gid, w.dir))
	return w
}

// config is the site's configuration with more after it.
func (w *ward) config(more string) string {
	name := filepath.Join(w.dir, "lmtpd.toml")
	writeFile(w.t, name, fmt.Sprintf("hostname = \"mx.example.org\"\nstate_directory = \"%[1]s/state\"\n[[userdb]]\ntype = \"passwd-file\"\npath = \"%[1]s/users\"\ndomains = [\"example.org\"]\n", w.dir)+more)
	return name
}

// mounted is a command that sees the machine with something else mounted.
func (w *ward) mounted(mount string) {
	needRoot(w.t, "mount")
	need(w.t, "unshare")
	w.within = []string{"unshare", "--mount", "--propagation", "private", "sh", "-euc", mount + "\nexec \"$@\"", "sh"}
}

func (w *ward) command(args ...string) *exec.Cmd {
	args = append(w.within[:len(w.within):len(w.within)], args...)
	return exec.Command(args[0], args[1:]...)
}

// plain is what was said, on one line, as if the directory were the root.
func (w *ward) plain(said []byte) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(string(said), w.dir, "")), " ")
}

// deliver is the log of a delivery, and what "lmtpd explain" says in the same place.
func (w *ward) deliver(config, to, message, explained string) string {
	w.t.Helper()
	cmd := w.command(program, "deliver", "-v", "-c", config, to)
	cmd.Stdin = strings.NewReader(message)
	said, err := cmd.CombinedOutput()
	if err == nil {
		w.t.Errorf("delivered: %s", said)
	}
	if explained != "" {
		why, _ := w.command(program, "explain", "-c", config, to).CombinedOutput() // its exit status is that of deliver
		if !strings.Contains(string(why), explained) {
			w.t.Errorf("lmtpd explain does not say %q:\n%s", explained, why)
		}
	}
	return w.plain(said)
}

func troubles() []trouble {
	return []trouble{
		{"Permission denied on a mailbox", func(t *testing.T) string {
			needRoot(t, "be another user")
			w := newWard(t)
			if err := os.Chown(filepath.Join(w.dir, "home/bob"), 0, 0); err != nil {
				t.Fatal(err)
			}
			return w.deliver(w.config(""), "bob@example.org", header, "missing +w")
		}},
		{"Homes are not there, or hidden by ProtectHome=", func(t *testing.T) string {
			w := newWard(t)
			config := w.config("")
			w.mounted("mount -t tmpfs -o mode=000 tmpfs " + w.dir + "/home") // as ProtectHome=yes does
			hidden := w.deliver(config, "bob@example.org", header, "missing +x")
			w.mounted("mount -t tmpfs tmpfs " + w.dir + "/home") // ProtectHome=tmpfs
			return hidden + " " + w.deliver(config, "bob@example.org", header, "is a file system not mounted there, or hidden")
		}},
		{"Read-only file system", func(t *testing.T) string {
			w := newWard(t)
			config := w.config("")
			w.mounted("mount --bind " + w.dir + "/home " + w.dir + "/home && mount -o remount,bind,ro " + w.dir + "/home")
			return w.deliver(config, "bob@example.org", header, "read-only file system")
		}},
		{"System users are unknown, because of the domain", func(t *testing.T) string {
			w := newWard(t)
			return w.deliver(w.config(""), "bob@mx.example.org", header, `domains of the user databases: "example.org"`)
		}},
		{"A user is unknown who exists", func(t *testing.T) string {
			w := newWard(t)
			return w.deliver(w.config("[[userdb]]\ntype = \"system\"\n"), "www-data@example.org", header, "")
		}},
		{"A user database does not answer", func(t *testing.T) string {
			w := newWard(t)
			config := w.config("[[userdb]]\ntype = \"system\"\n")
			writeFile(t, filepath.Join(w.dir, "nsswitch.conf"), "passwd: files sss\ngroup: files sss\n")
			w.mounted("mount --bind " + w.dir + "/nsswitch.conf /etc/nsswitch.conf")
			return w.deliver(config, "carol@example.org", header, "may be down")
		}},
		{"Over quota", func(t *testing.T) string {
			needRoot(t, "be another user")
			w := newWard(t)
			config := w.config("[mailbox]\nquota = \"1 MiB\"\n")
			owner := &syscall.Credential{Uid: 1001, Gid: 1001}
			makeMaildir(t, filepath.Join(w.dir, "home/bob/Maildir"), owner)
			full := filepath.Join(w.dir, "home/bob/Maildir/cur/1.a.b,S=1048000:2,S")
			writeFile(t, full, strings.Repeat("x", 1048000))
			said := w.deliver(config, "bob@example.org", header+strings.Repeat("x", 1000), "limit 1 MiB: 100%")
			if out := run(t, "", program, "quota", "get", "-c", config, "bob@example.org"); !strings.Contains(out, "100%") {
				t.Errorf("lmtpd quota get says\n%s", out)
			}
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			// The kernel's own quota.
			w.within = []string{need(t, "strace")[0], "-f", "-o", "/dev/null", "-e", "trace=writev", "-e", "inject=writev:error=EDQUOT"}
			said += " " + w.deliver(w.config(""), "bob@example.org", header, "")
			w.mounted("mount -t tmpfs -o size=128k,uid=1001,gid=1001 tmpfs " + w.dir + "/home/bob")
			return said + " " + w.deliver(config, "bob@example.org", header+"\r\n"+strings.Repeat(strings.Repeat("x", 70)+"\r\n", 4000), "")
		}},
		{"Mail goes in circles", func(t *testing.T) string {
			w := newWard(t)
			return w.deliver(w.config(""), "bob@example.org", "Delivered-To: bob@example.org\n"+header, "")
		}},
		{"Mail does not get to another server or to a program", func(t *testing.T) string {
			needRoot(t, "run programs as another user")
			w := newWard(t)
			writeFile(t, filepath.Join(w.dir, "users"), "bob@example.org:::::::userdb_transport=relay\neve@example.org:::::::userdb_transport=archive\ndan@example.org:::::::userdb_transport=pipe\n")
			config := w.config(fmt.Sprintf("[[transport]]\ntype = \"relay\"\nhosts = [\"unix:%s/run/other.sock\"]\n[[transport]]\ntype = \"pipe\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no such queue; exit 1\"]\n[commands]\nuser = \"daemon\"\n", w.dir))
			said := w.deliver(config, "bob@example.org", header, "relay over lmtp to unix:"+w.dir+"/run/other.sock")
			said += " " + w.deliver(config, "eve@example.org", header, "is not configured")
			return said + " " + w.deliver(config, "dan@example.org", header, "pipe to \"/bin/sh\"")
		}},
		{"The daemon does not start, or a reload changes nothing", func(t *testing.T) string {
			w := newWard(t)
			const site = "[[listen]]\naddress = \"DIR/lmtp.sock\"\n[[userdb]]\ntype = \"system\"\n[status]\nsocket = \"\"\n"
			text := strings.ReplaceAll(site, "DIR", w.dir)
			a := startLMTPD(t, agentOptions{dir: w.dir, config: text})
			bad := strings.Repeat("\n", 11) + "limits.sesions = 1\n" + text
			writeFile(t, a.config, bad)
			a.signal(t, syscall.SIGHUP)
			line := a.stderr.await(t, `.*configuration refused.*`)[0]
			if out, err := exec.Command(program, "check", "-c", a.config).CombinedOutput(); err == nil || !strings.Contains(string(out), "did you mean limits.sessions?") {
				t.Errorf("lmtpd check: %v, %s", err, out)
			}
			a.stop(t)
			return strings.ReplaceAll(w.plain([]byte(line)), "/lmtpd.toml", "/etc/lmtpd/lmtpd.toml")
		}},
		{"No answer from lmtpd status", func(t *testing.T) string {
			needRoot(t, "be another user")
			w := newWard(t)
			mkdir(t, filepath.Join(w.dir, "run/lmtpd"), nil)
			a := startLMTPD(t, agentOptions{dir: w.dir, config: fmt.Sprintf("[[listen]]\naddress = \"%[1]s/lmtp.sock\"\n[[userdb]]\ntype = \"system\"\n[status]\nsocket = \"%[1]s/run/lmtpd/status.sock\"\n", w.dir)})
			w.within = []string{need(t, "setpriv")[0], "--reuid=1000", "--regid=1000", "--clear-groups"}
			out, err := w.command(program, "status", "-c", a.config).CombinedOutput()
			if err == nil {
				t.Error("it answered")
			}
			a.stop(t)
			return w.plain(out)
		}},
		{"Postfix in its chroot does not find the socket", func(t *testing.T) string {
			// The socket is where the client looks, but not within its chroot.
			return postfixTrouble(t, contrib(t, "master.cf.chroot"), 0o666)
		}},
		{"The socket does not let Postfix or Exim in", func(t *testing.T) string {
			return postfixTrouble(t, contrib(t, "master.cf"), 0o600) + " " + eximTrouble(t)
		}},
	}
}

// listenTo makes a socket that root alone owns.
func listenTo(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	mkdir(t, filepath.Dir(path), nil)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// postfixTrouble is how Postfix says that it cannot connect.
func postfixTrouble(t *testing.T, master string, mode os.FileMode) string {
	t.Helper()
	need(t, "postfix")
	dir := tempDir(t)
	listenTo(t, filepath.Join(dir, "run/lmtp.sock"), mode)
	p := startPostfix(t, dir, contrib(t, "main.cf.virtual", "/run/lmtpd", filepath.Join(dir, "run")), master)
	id := p.submit(t, "sender@example.net", "", []string{"bob@example.org"}, []byte(header))
	line := p.log.await(t, id+`: to=<bob@example\.org>.*`)[0]
	return strings.NewReplacer(dir+"/run", "/run/lmtpd", "mta.example.org", "mx.example.org").Replace(line)
}

// eximTrouble is how Exim says that it may not connect.
func eximTrouble(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	within := eximWithin(t, dir, newAccounts(t, dir, eximUser))
	listenTo(t, filepath.Join(dir, "run/lmtp.sock"), 0o600)
	x := startExim(t, dir, within, firstAccount,
		"MAIN", contribExim(t, "main"),
		"ACL", "",
		"ROUTERS", contribExim(t, "router.virtual"),
		"TRANSPORTS", contribExim(t, "transport", "/run/lmtpd", filepath.Join(dir, "run"))+contribExim(t, "transport.verify"),
		"RETRY", contribExim(t, "retry"))
	x.inject(t, "sender@example.net", "bob@example.org")
	return strings.ReplaceAll(x.log.await(t, ` == bob@example\.org .*`)[0], dir+"/run", "/run/lmtpd")
}
