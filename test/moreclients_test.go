package test

import (
	"io"
	"net"
	netsmtp "net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// TestGoSMTP: go-smtp's LMTP client, with a recipient that is refused.
func TestGoSMTP(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "gosmtp", "other")
	conn, err := net.Dial("unix", s.sock)
	if err != nil {
		t.Fatal(err)
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	if err := c.Hello("gosmtp.example.net"); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("sender@example.net", &smtp.MailOptions{Size: int64(len(clientMessage))}); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"gosmtp@example.org", "other@example.org"} {
		if err := c.Rcpt(to, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Rcpt("unknown@example.org", nil); err == nil || !strings.Contains(err.Error(), "550") {
		t.Errorf("unknown recipient: %v", err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(clientMessage)); err != nil {
		t.Fatal(err)
	}
	replies, err := w.CloseWithLMTPResponse()
	if err != nil || len(replies) != 2 {
		t.Errorf("replies %v, %v", replies, err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	checkStored(t, oneMessage(t, s.maildir("gosmtp")), trace{
		sender: "sender@example.net", recipient: "gosmtp@example.org", helo: "gosmtp.example.net", with: "LMTP",
	}, []byte(clientMessage))
}

// TestNetSMTP: Go's own client, with STARTTLS and AUTH PLAIN.
func TestNetSMTP(t *testing.T) {
	t.Parallel()
	srv, rec := secureServer(t, protocol.SMTP)
	c, err := netsmtp.Dial(srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(srv.ClientTLS()); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(netsmtp.PlainAuth("", "joe", "wrong", "127.0.0.1")); err == nil {
		t.Error("a wrong password is accepted")
	}
	c.Close() // after a failure it has sent QUIT
	if c, err = netsmtp.Dial(srv.Addr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(srv.ClientTLS()); err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(netsmtp.PlainAuth("", "joe", "secret", "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("joe@example.org"); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("bob@example.org"); err != nil {
		t.Fatal(err)
	}
	handIn(t, c.Data, c.Quit)
	checkSecured(t, rec.Next(t))
}

// handIn sends the message by a client's own means, and ends its session.
func handIn[W io.WriteCloser](t *testing.T, data func() (W, error), quit func() error) {
	t.Helper()
	w, err := data()
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(secureMessage))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := quit(); err != nil {
		t.Error(err)
	}
}

// TestSecureClients: STARTTLS and AUTH with programs that others wrote.
func TestSecureClients(t *testing.T) {
	t.Parallel()
	srv, rec := secureServer(t, protocol.SMTP)
	host, port, _ := strings.Cut(srv.Addr, ":")
	t.Run("Python", func(t *testing.T) {
		python := need(t, "/usr/bin/python3")[0]
		const script = `
import smtplib, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as c:
    c.starttls(context=context)
    c.login("joe", "secret")
    c.sendmail("joe@example.org", ["bob@example.org"], sys.stdin.read())
`
		run(t, strings.ReplaceAll(secureMessage, "\r\n", "\n"), python, "-c", script, host, port)
		checkSecured(t, rec.Next(t))
	})
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		t.Run("swaks "+mechanism, func(t *testing.T) {
			swaks := need(t, "swaks")[0]
			run(t, strings.TrimSuffix(secureMessage, "\r\n"), swaks, "--server", srv.Addr, "--tls", "--auth", mechanism, "--auth-user", "joe", "--auth-password", "secret",
				"--from", "joe@example.org", "--to", "bob@example.org", "--data", "-")
			checkSecured(t, rec.Next(t))
		})
	}
	t.Run("msmtp", func(t *testing.T) {
		msmtp := need(t, "msmtp")[0]
		run(t, strings.ReplaceAll(secureMessage, "\r\n", "\n"), msmtp, "--file=/dev/null", "--host="+host, "--port="+port, "--tls=on", "--tls-certcheck=off",
			"--auth=plain", "--user=joe", "--passwordeval=echo secret", "--from=joe@example.org", "--", "bob@example.org")
		checkSecured(t, rec.Next(t))
	})
}

// TestNodemailer: LMTP over TCP, which is all that it has for that, and SMTP with TLS
// and AUTH.
func TestNodemailer(t *testing.T) {
	t.Parallel()
	node := need(t, "node")[0]
	const modules = "/usr/share/nodejs"
	if _, err := os.Stat(modules + "/nodemailer"); err != nil {
		t.Skip("no nodemailer here; test/setup.sh installs it")
	}
	const script = `
const options = JSON.parse(process.argv[1])
const raw = require('fs').readFileSync(0)
require('nodemailer').createTransport(options)
	.sendMail({envelope: {from: 'joe@example.org', to: ['bob@example.org', 'eve@example.org']}, raw})
	.then(i => console.log(i.response))
	.catch(e => { console.error(e); process.exit(1) })
`
	send := func(t *testing.T, addr, options string) {
		t.Helper()
		host, port, _ := strings.Cut(addr, ":")
		cmd := exec.Command(node, "-e", script, "{"+options+`, "host": "`+host+`", "port": `+port+"}")
		cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
		cmd.Stdin = strings.NewReader(secureMessage)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nodemailer: %v\n%s", err, out)
		}
	}
	t.Run("LMTP", func(t *testing.T) {
		rec := protocoltest.NewRecorder()
		srv := protocoltest.NewUnstartedServer(protocol.LMTP, rec)
		srv.Start()
		defer srv.Close()
		send(t, srv.Addr, `"lmtp": true, "ignoreTLS": true`)
		if m := rec.Next(t); string(m.Body) != secureMessage || m.With != "LMTP" || len(m.Rcpts) != 2 {
			t.Errorf("message %+v", m)
		}
	})
	t.Run("SMTP", func(t *testing.T) {
		srv, rec := secureServer(t, protocol.SMTP)
		send(t, srv.Addr, `"requireTLS": true, "tls": {"rejectUnauthorized": false}, "auth": {"user": "joe", "pass": "secret"}`)
		checkSecured(t, rec.Next(t))
	})
}

// TestFetchmail: fetchmail takes mail from a POP3 server and hands it on over LMTP.
func TestFetchmail(t *testing.T) {
	t.Parallel()
	fetchmail := need(t, "fetchmail")[0]
	s := startPlainSite(t, "fetched")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go servePOP3(l, strings.ReplaceAll(clientMessage, "\n", "\r\n"))
	_, port, _ := net.SplitHostPort(l.Addr().String())
	dir := tempDir(t)
	mkdir(t, dir, newcomer())
	cmd := exec.Command(fetchmail, "--fetchmailrc", "-", "--pidfile", filepath.Join(dir, "pid"), "--idfile", filepath.Join(dir, "ids"))
	// A path makes fetchmail speak LMTP over a Unix socket.
	cmd.Stdin = strings.NewReader("poll 127.0.0.1 protocol POP3 port " + port + " auth password user joe password secret sslproto '' lmtp smtphost " + s.sock +
		" smtpname fetched@example.org fetchall keep\n")
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "USER=joe", "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	if n := len(messages(t, s.maildir("fetched"))); n != 1 {
		t.Errorf("%d messages", n)
	}
}
