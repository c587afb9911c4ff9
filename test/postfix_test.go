package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// postfix is a private Postfix: configuration, queue and data directory of its
// own, SMTP on a free port of loopback.
type postfix struct {
	dir  string // its configuration directory
	addr string // SMTP, host:port
	log  *lines // everything Postfix logs
	stop io.Closer
	proc *process
}

// privateMain keeps it away from the machine's own Postfix and its mail as it
// was submitted. DIR is the directory of the test.
const privateMain = `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = /dev/stdout
multi_instance_enable = no
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mta.example.org
mydomain = example.org
myorigin = example.org
alias_maps =
alias_database =
local_header_rewrite_clients =
`

// privateMaster is every service that mail from SMTP to a transport needs.
const privateMaster = `
ADDR      inet  n       -       n       -       -       smtpd
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
smtp      unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
local     unix  -       n       n       -       -       local
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
`

// contrib reads a file of contrib/postfix, as an administrator would use it
// but for the places of things: pairs of a path there and a path of the test.
func contrib(t *testing.T, name string, places ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../contrib/postfix", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(places); i += 2 {
		if !strings.Contains(string(b), places[i]) {
			t.Fatalf("contrib/postfix/%s does not mention %s", name, places[i])
		}
	}
	return strings.NewReplacer(places...).Replace(string(b))
}

// startPostfix runs Postfix with these settings after the private ones, until
// the test ends. dir is the test's directory; within as in agentOptions.
func startPostfix(t *testing.T, dir, main, master string, within ...string) *postfix {
	t.Helper()
	needRoot(t, "start Postfix")
	command := need(t, "postfix")[0]
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	p := &postfix{dir: filepath.Join(dir, "postfix"), addr: freePort(t)}
	mkdir(t, p.dir, nil)
	mkdir(t, filepath.Join(dir, "queue"), nil)
	mkdir(t, filepath.Join(dir, "data"), nil)
	if err := os.Chown(filepath.Join(dir, "data"), atoi(t, owner.Uid), 0); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(p.dir, "main.cf"), strings.ReplaceAll(privateMain, "DIR", dir)+main)
	writeFile(t, filepath.Join(p.dir, "master.cf"), strings.ReplaceAll(privateMaster, "ADDR", p.addr)+master)

	// Postfix waits for a file of the last seconds to settle.
	settled := time.Now().Add(-time.Hour)
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.Chtimes(filepath.Join(p.dir, name), settled, settled); err != nil {
			t.Fatal(err)
		}
	}

	// The end of standard input stops it: also when the test run is killed.
	// Only master's own process id ends master.
	const script = `"$@" </dev/null & read -r _; kill "$(cat ` + "`postconf -c \"$DIR\" -h queue_directory`" + `/pid/master.pid)"; wait`
	args := append(append([]string{}, within...), "sh", "-c", script, "sh", command, "-c", p.dir, "start-fg")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "DIR="+p.dir, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stop = stdin
	p.proc = start(t, "postfix", cmd)
	t.Cleanup(func() {
		stdin.Close()
		p.proc.wait(t)
	})
	p.log = p.proc.stdout
	p.log.await(t, `postfix/master\[\d+\]: daemon started`)
	return p
}

// freePort returns an address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// submit hands a message to Postfix over SMTP and returns its queue id.
func (p *postfix) submit(t *testing.T, from, parameters string, to []string, message []byte) string {
	t.Helper()
	c := dial(t, p.addr)
	c.expect(t, "250", "EHLO client.example.net")
	r := c.send(t, from, parameters, to, message, 1)[0]
	c.expect(t, "221", "QUIT")
	return queueID(t, r)
}

// submitChunk is submit with BDAT, which can leave out the last line's end.
func (p *postfix) submitChunk(t *testing.T, from string, to []string, message []byte) string {
	t.Helper()
	c := dial(t, p.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<"+from+">")
	for _, rcpt := range to {
		c.expect(t, "250", "RCPT TO:<"+rcpt+">")
	}
	c.write(t, fmt.Appendf(nil, "BDAT %d LAST\r\n%s", len(message), message))
	return queueID(t, c.reply(t))
}

func queueID(t *testing.T, reply string) string {
	t.Helper()
	m := regexp.MustCompile(`^250 .*queued as (\w+)`).FindStringSubmatch(reply)
	if m == nil {
		t.Fatalf("Postfix answered %q", reply)
	}
	return m[1]
}

// gone waits until Postfix is done with a message: each recipient has been
// delivered or bounced.
func (p *postfix) gone(t *testing.T, id string) {
	t.Helper()
	p.log.await(t, `postfix/qmgr\[\d+\]: `+id+`: removed$`)
}

// deliveries returns "recipient status reason" of each delivery attempt.
func (p *postfix) deliveries(id string) (all []delivery) {
	for _, m := range p.log.find(`: ` + id + `: to=<([^>]*)>.* relay=([^,]*), .*dsn=([^,]*), status=(\w+) \((.*)\)$`) {
		all = append(all, delivery{to: m[1], relay: m[2], dsn: m[3], status: m[4], reason: m[5]})
	}
	return all
}

type delivery struct{ to, relay, dsn, status, reason string }

// flush has Postfix try deferred mail now.
func (p *postfix) flush(t *testing.T) {
	t.Helper()
	run(t, "", need(t, "postqueue")[0], "-c", p.dir, "-f")
}

// received is a pattern of the line that Postfix puts before a message.
func (p *postfix) received(id, protocol string, to ...string) string {
	pattern := `Received: from client\.example\.net \([^\n]*\)\n\tby mta\.example\.org \(Postfix\) with ` +
		protocol + ` id ` + id
	if len(to) == 1 { // it keeps recipients from each other
		return pattern + `\n\tfor <` + regexp.QuoteMeta(to[0]) + `>; ` + date + "\n"
	}
	return pattern + `;\n\t` + date + "\n"
}

// group returns the id of a group as a credential's supplementary group.
func group(t *testing.T, name string) uint32 {
	t.Helper()
	g, err := user.LookupGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(atoi(t, g.Gid))
}

// mailUser is an unprivileged user who owns all mail, and may give the socket
// to Postfix. The account need not exist.
func mailUser(t *testing.T) *syscall.Credential {
	t.Helper()
	return &syscall.Credential{Uid: 5000, Gid: 5000, Groups: []uint32{group(t, "postfix")}}
}
