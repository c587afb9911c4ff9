package test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// relaySite is an lmtpd of several, with a directory of its own and a table of users that
// may be another's too. Its LMTP is on a Unix socket and on a TCP port.
type relaySite struct {
	*plainSite
	addr, port string
}

// newRelaySite reserves the addresses; name becomes the hostname.
func newRelaySite(t *testing.T) *relaySite {
	t.Helper()
	s := &relaySite{plainSite: &plainSite{dir: tempDir(t)}, addr: freePort(t)}
	s.sock = filepath.Join(s.dir, "lmtp.sock")
	_, s.port, _ = net.SplitHostPort(s.addr)
	return s
}

func (s *relaySite) start(t *testing.T, name, users, more string) {
	t.Helper()
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, config: fmt.Sprintf(`
hostname = "%s.example.org"
[[listen]]
name = "lmtp"
address = "unix:%s"
[[listen]]
name = "tcp"
address = "tcp:%s"
[metrics]
address = "%s/metrics.sock"
[[userdb]]
type = "passwd-file"
path = "%s"
%s`, name, s.sock, s.addr, s.dir, users, more)})
}

// restart is for one that was killed.
func (s *relaySite) restart(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.dir, "notify")); err != nil {
		t.Fatal(err)
	}
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, config: readFile(t, s.agent.config)})
}

// greeted is a client that has said hello.
func (s *relaySite) greeted(t *testing.T) *client {
	t.Helper()
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	return c
}

func wantPrefixes(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("reply %d of %q, want %q", i, got, want[i])
		}
	}
}

// TestSharedUsers: two machines with one table of users, each of which has one's mail:
// whichever gets the mail, it comes to where the record says.
func TestSharedUsers(t *testing.T) {
	t.Parallel()
	a, b := newRelaySite(t), newRelaySite(t)
	users := filepath.Join(a.dir, "users")
	for _, u := range []string{"ann", "bob", "full"} {
		mkdir(t, a.home(u), nil)
	}
	writeFile(t, users, fmt.Sprintf("ann@example.org:::::%s::proxy=y host=127.0.0.1 port=%s\nbob@example.org:::::%s::proxy=y host=127.0.0.1 port=%s\n"+
		"cut@example.org:::::::proxy=y host=127.0.0.1 port=1\nfull@example.org:::::%s::proxy=y host=127.0.0.1 port=%s userdb_quota_rule=*:bytes=1\n",
		a.home("ann"), a.port, a.home("bob"), b.port, a.home("full"), b.port))
	const transport = "[[transport]]\nname = \"backends\"\ntype = \"relay\"\n"
	a.start(t, "a", users, transport)
	b.start(t, "b", users, transport)
	message := []byte(header + "\r\nto all of them\r\n.\r\n")
	rcpts := []string{"bob@example.org", "ann@example.org", "cut@example.org", "bob+x@example.org", "full@example.org", "bob@example.org"}
	for _, s := range []*relaySite{a, b} {
		got := s.greeted(t).send(t, "sender@example.net", "BODY=8BITMIME", rcpts[:4], message, 4)
		wantPrefixes(t, got, "250 2.0.0 OK ", "250 2.0.0 OK ", "451 4.4.1 Next server cannot be reached", "250 2.0.0 OK ")
	}
	for user, by := range map[string]string{"ann": "a", "bob": "b"} {
		all := messages(t, a.maildir(user))
		if want := map[string]int{"ann": 2, "bob": 4}[user]; len(all) != want {
			t.Errorf("%s has %d messages, want %d", user, len(all), want)
		}
		for _, m := range all {
			if !bytes.Contains(m.content, []byte("by "+by+".example.org (lmtpd) with LMTP")) || !bytes.HasSuffix(m.content, asStored(message)) {
				t.Errorf("%s: %q", user, m.content)
			}
		}
	}
	// Over TCP to the other one: full has no mailbox here, nor a quota.
	got := a.greeted(t).send(t, "sender@example.net", "", rcpts[4:], message, 2)
	wantPrefixes(t, got, "552 5.2.3 ", "250 2.0.0 OK ")
	if text := metricsOf(t, filepath.Join(a.dir, "metrics.sock")); !strings.Contains(text, `lmtpd_recipients_total{outcome="delivered",transport="backends"} 3`) {
		t.Error(text)
	}
	a.stop(t)
	b.stop(t)
}

// TestRelayLoop: two machines whose tables disagree about whose user it is.
func TestRelayLoop(t *testing.T) {
	t.Parallel()
	a, b := newRelaySite(t), newRelaySite(t)
	for _, s := range []struct{ own, other *relaySite }{{a, b}, {b, a}} {
		users := filepath.Join(s.own.dir, "users")
		writeFile(t, users, "user@example.org:::::::userdb_host=127.0.0.1 userdb_port="+s.other.port+"\n")
		s.own.start(t, "host"+s.own.port, users, "[[transport]]\ntype = \"relay\"\n")
	}
	got := a.greeted(t).send(t, "", "", []string{"user@example.org"}, []byte(header+"\r\nround and round\r\n"), 1)
	wantPrefixes(t, got, "554 5.4.6 Message has been relayed by this host too often: mail loop")
}

// TestRelayReplyLost: the next server has the message and its reply is lost. The client
// is told to come again, and the next server knows the message then.
func TestRelayReplyLost(t *testing.T) {
	t.Parallel()
	a, b := newRelaySite(t), newRelaySite(t)
	mkdir(t, b.home("user"), nil)
	writeFile(t, b.dir+"/users", fmt.Sprintf("user@example.org:::::%s::\n", b.home("user")))
	b.start(t, "b", b.dir+"/users", "")
	cut := make(chan bool)
	line := newCutLine(t, b.addr, cut)
	writeFile(t, a.dir+"/users", "user@example.org:::::::\n")
	a.start(t, "a", a.dir+"/users", fmt.Sprintf("[delivery]\ntransport = \"next\"\n[[transport]]\nname = \"next\"\ntype = \"relay\"\nhosts = [\"tcp:%s\"]\n", line))

	message := []byte(header + "\r\nonce\r\n")
	replies := make(chan []string)
	first := a.greeted(t)
	go func() { replies <- first.send(t, "sender@example.net", "", []string{"user@example.org"}, message, 1) }()
	b.stderr.await(t, `to=user@example\.org.* status=delivered.* again=false`)
	close(cut)
	wantPrefixes(t, <-replies, "451 4.4.2 Next server did not answer")

	// a is killed too, and still says the same of the message.
	a.signal(t, syscall.SIGKILL)
	a.wait(t)
	a.restart(t)
	wantPrefixes(t, a.greeted(t).send(t, "sender@example.net", "", []string{"user@example.org"}, message, 1), "250 2.0.0 OK ")
	b.stderr.await(t, `to=user@example\.org.* status=delivered.* again=true`)
	oneMessage(t, b.maildir("user"))
}

// newCutLine is a way to addr whose first connection loses all replies to the data, and
// is cut when the channel is closed.
func newCutLine(t *testing.T, addr string, cut chan bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for first := true; ; first = false {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", addr)
			if err != nil {
				in.Close()
				return
			}
			go func() { io.Copy(out, in); out.Close() }()
			go func() {
				defer in.Close()
				if !first {
					io.Copy(in, out)
					return
				}
				replies := bufio.NewReader(out)
				for {
					text, err := replies.ReadString('\n')
					if err != nil {
						return
					}
					io.WriteString(in, text)
					if strings.HasPrefix(text, "354") {
						<-cut
						out.Close()
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// dovecotLMTP serves the users of DIR/users into their homes.
const dovecotLMTP = `base_dir = DIR/dovecot
state_dir = DIR/dovecot-state
log_path = /dev/stderr
protocols = lmtp
ssl = no
mail_location = maildir:~/Maildir
first_valid_uid = 1
passdb {
  driver = passwd-file
  args = username_format=%u DIR/users
}
userdb {
  driver = passwd-file
  args = username_format=%u DIR/users
}
service lmtp {
  unix_listener DIR/dovecot.sock {
    mode = 0666
  }
}
`

// TestRelayToDovecot: the replies are Dovecot's, and the mail is in its mailboxes.
func TestRelayToDovecot(t *testing.T) {
	t.Parallel()
	needRoot(t, "start Dovecot")
	program := need(t, "dovecot", "/usr/lib/dovecot/lmtp")[0]
	s := newRelaySite(t)
	owner := mailUser(t)
	var users strings.Builder
	for _, u := range []string{"ann", "bob"} {
		mkdir(t, s.home(u), owner)
		fmt.Fprintf(&users, "%s@example.org::%d:%d::%s::\n", u, owner.Uid, owner.Gid, s.home(u))
	}
	writeFile(t, s.dir+"/users", users.String())
	writeFile(t, s.dir+"/relayed", users.String()+"unknown@example.org:::::::\n")
	writeFile(t, s.dir+"/dovecot.conf", strings.ReplaceAll(dovecotLMTP, "DIR", s.dir))
	mkdir(t, s.dir+"/dovecot-state", nil)
	cmd := exec.Command(program, "-F", "-c", s.dir+"/dovecot.conf")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	d := start(t, "dovecot", cmd)
	t.Cleanup(func() {
		d.signal(t, syscall.SIGTERM)
		d.wait(t)
	})
	d.stderr.await(t, "starting up for lmtp")
	s.start(t, "front", s.dir+"/relayed", fmt.Sprintf("[delivery]\ntransport = \"dovecot\"\n[[transport]]\nname = \"dovecot\"\ntype = \"relay\"\nhosts = [\"unix:%s/dovecot.sock\"]\n", s.dir))
	c := s.greeted(t)
	message := []byte(header + "\r\n.\r\nfor Dovecot, \xe2\x82\xac\r\n")
	for range 2 {
		got := c.send(t, "", "BODY=8BITMIME", []string{"ann@example.org", "unknown@example.org", "bob@example.org", "ann@example.org"}, message, 4)
		wantPrefixes(t, got, "250 2.0.0 OK ", "550 5.1.1 <unknown@example.org>", "250 2.0.0 OK ", "250 2.0.0 OK ")
		if !strings.Contains(got[0], "<ann@example.org>") || !strings.Contains(got[0], "Saved") {
			t.Errorf("%q", got[0])
		}
	}
	for _, u := range []string{"ann", "bob"} {
		files, err := filepath.Glob(s.maildir(u) + "/new/*")
		if err != nil || len(files) != 2 {
			t.Errorf("%s: %v", u, files)
		}
		for _, f := range files {
			if text := readFile(t, f); !strings.HasSuffix(text, string(asStored(message))) || !strings.Contains(text, "by front.example.org (lmtpd relay) with LMTP id ") {
				t.Errorf("%q", text)
			}
		}
	}
	s.stop(t)
}

// TestRelayToPostfix: SMTP to a real Postfix, secured by a certificate of a CA of our own.
func TestRelayToPostfix(t *testing.T) {
	t.Parallel()
	s := newRelaySite(t)
	ca := writeCertificates(t, s.dir)
	p := startPostfix(t, s.dir, fmt.Sprintf(`
smtpd_tls_cert_file = %[1]s/cert.pem
smtpd_tls_key_file = %[1]s/key.pem
smtpd_tls_security_level = encrypt
smtpd_tls_loglevel = 1
relay_domains = example.org
relay_transport = discard:
smtpd_recipient_restrictions = check_recipient_access inline:{ {no@example.org = 550 5.1.1 No such user} {later@example.org = 450 4.2.0 Later} }, permit_mynetworks, reject
`, s.dir), "discard   unix  -       -       n       -       -       discard\ntlsmgr    unix  -       -       n       1000?   1       tlsmgr\n")
	_, port, _ := net.SplitHostPort(p.addr)
	writeFile(t, s.dir+"/users", "ann@example.org:::::::\nno@example.org:::::::\nlater@example.org:::::::\nunsafe@example.org:::::::userdb_transport=unsafe\n")
	s.start(t, "front", s.dir+"/users", fmt.Sprintf(`
[delivery]
transport = "mta"
[[transport]]
name = "mta"
type = "relay"
protocol = "smtp"
hosts = ["tcp:localhost:%[1]s"]
tls = "required"
ca_file = "%[2]s"
[[transport]]
name = "unsafe"
type = "relay"
protocol = "smtp"
hosts = ["tcp:localhost:%[1]s"]
tls = "required"
`, port, ca))
	c := s.greeted(t)
	message := []byte(header + "Message-ID: <for-postfix@example.net>\r\n\r\nx\r\n")
	got := c.send(t, "sender@example.net", "", []string{"no@example.org", "ann@example.org", "later@example.org", "unsafe@example.org"}, message, 4)
	wantPrefixes(t, got, "550 5.1.1 <no@example.org>: Recipient address rejected: No such user", "250 2.0.0 OK ", "450 4.2.0 <later@example.org>: Recipient address rejected: Later", "451 4.7.5 ")
	if !strings.Contains(got[1], "(Ok: queued as ") {
		t.Errorf("%q", got[1])
	}
	p.log.await(t, `smtpd\[\d+\]: Anonymous TLS connection established from `)
	p.log.await(t, `message-id=<for-postfix@example\.net>`)
	p.log.await(t, `to=<ann@example\.org>, relay=none, .* status=sent`)
	s.stop(t)
}

// writeCertificates makes a CA and a certificate of it for localhost: cert.pem and
// key.pem in dir. It returns the file with the CA.
func writeCertificates(t *testing.T, dir string) string {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, f := range []struct {
		name   string
		leaf   *x509.Certificate
		public *ecdsa.PrivateKey
	}{{"ca.pem", ca, caKey}, {"cert.pem", leaf, key}} {
		der, err := x509.CreateCertificate(rand.Reader, f.leaf, ca, &f.public.PublicKey, caKey)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, f.name), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return filepath.Join(dir, "ca.pem")
}

// TestPoolFailover: one of two servers is killed under load and comes back. Every message
// is in the mailbox, and once unless its reply was lost and another server took it then.
func TestPoolFailover(t *testing.T) {
	t.Parallel()
	front, one, two := newRelaySite(t), newRelaySite(t), newRelaySite(t)
	mkdir(t, front.home("user"), nil)
	users := filepath.Join(front.dir, "users")
	writeFile(t, users, fmt.Sprintf("user@example.org:::::%s::\n", front.home("user")))
	one.start(t, "one", users, "")
	two.start(t, "two", users, "")
	front.start(t, "front", users, fmt.Sprintf("[delivery]\ntransport = \"pool\"\n[[transport]]\nname = \"pool\"\ntype = \"relay\"\nhosts = [\"tcp:%s\", \"tcp:%s\"]\n", one.addr, two.addr))
	const total = 120
	next := make(chan int)
	var again sync.Map // numbers whose first reply was not 250
	var all sync.WaitGroup
	for range 4 {
		c := front.greeted(t)
		all.Go(func() {
			for n := range next {
				message := []byte(fmt.Sprintf("%sX-Number: %d.\r\n\r\nx\r\n", header, n))
				for range 100 { // as an MTA does
					c.write(t, []byte("MAIL FROM:<sender@example.net>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"))
					c.reply(t)
					c.reply(t)
					c.reply(t)
					c.body(t, message)
					r := c.reply(t)
					if strings.HasPrefix(r, "250 2.0.0 ") {
						break
					}
					if !strings.HasPrefix(r, "451 4.4.") {
						t.Errorf("message %d: %q", n, r)
						break
					}
					again.Store(fmt.Sprint(n), r)
				}
			}
		})
	}
	for n := range total {
		if n == total/3 {
			one.signal(t, syscall.SIGKILL)
			one.wait(t)
		}
		if n == 2*total/3 {
			one.restart(t)
		}
		next <- n
	}
	close(next)
	all.Wait()
	clearTmp(t, front.maildir("user"))
	count := marksOf(t, front.maildir("user"))
	for n := range total {
		got := count[fmt.Sprint(n)]
		if _, lost := again.Load(fmt.Sprint(n)); got == 0 || got > 1 && !lost {
			t.Errorf("message %d is there %d times", n, got)
		}
	}
	front.stop(t)
}

// marksOf counts the messages of a Maildir by their X-Number.
func marksOf(t *testing.T, maildir string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for _, m := range messages(t, maildir) {
		if f := regexp.MustCompile(`\nX-Number: (\d+)\.\n`).FindSubmatch(m.content); f != nil {
			count[string(f[1])]++
		}
	}
	return count
}
