package test

import (
	"context"
	"crypto/tls"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// secureAuth lets joe in, and nobody who has not shown to be joe.
func secureAuth() protocol.Auth {
	return protocol.Auth{Required: true, Check: protocol.AuthenticatorFunc(
		func(_ context.Context, _ *protocol.Session, _, _, user, password string) (*protocol.Identity, error) {
			if user == "joe" && password == "secret" {
				return &protocol.Identity{User: user}, nil
			}
			return nil, protocol.ErrCredentials
		})}
}

// secureServer is a server on a port of loopback that wants STARTTLS, and joe to authenticate.
func secureServer(t *testing.T, mode protocol.Mode) (*protocoltest.Server, *protocoltest.Recorder) {
	t.Helper()
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewUnstartedServer(mode, rec)
	srv.UseTLS()
	srv.Config.TLSNeeded = true
	srv.Config.Auth = secureAuth()
	srv.Start()
	t.Cleanup(srv.Close)
	return srv, rec
}

const secureMessage = "Subject: secured\r\n\r\n.dot\r\n"

func checkSecured(t *testing.T, m protocoltest.Message) {
	t.Helper()
	if m.From != "joe@example.org" || !strings.HasSuffix(m.With, "MTPSA") || !strings.HasSuffix(string(m.Body), "\r\n\r\n.dot\r\n") {
		t.Errorf("message %+v", m)
	}
}

// saslServer makes a protocol.Mechanism of a mechanism of go-sasl's.
type saslServer struct {
	sasl.Server
	id *protocol.Identity // set by the time it is done
}

func (m *saslServer) Next(_ context.Context, response []byte) ([]byte, *protocol.Identity, error) {
	challenge, done, err := m.Server.Next(response)
	if done && err == nil {
		return nil, m.id, nil
	}
	return challenge, nil, err
}

// TestGoSMTPSecured: go-smtp's LMTP client, with TLS from the start and with STARTTLS,
// and AUTH by PLAIN, LOGIN and a mechanism of go-sasl's.
func TestGoSMTPSecured(t *testing.T) {
	t.Parallel()
	bearer := func(*protocol.Session) protocol.Mechanism {
		m := new(saslServer)
		m.Server = sasl.NewOAuthBearerServer(func(o sasl.OAuthBearerOptions) *sasl.OAuthBearerError {
			if o.Token != "token" {
				return &sasl.OAuthBearerError{Status: "invalid_token"}
			}
			m.id = &protocol.Identity{User: o.Username}
			return nil
		})
		return m
	}
	for _, implicit := range []bool{false, true} {
		rec := protocoltest.NewRecorder()
		srv := protocoltest.NewUnstartedServer(protocol.LMTP, rec)
		srv.UseTLS()
		srv.Config.TLSNeeded = true
		srv.Config.Auth = secureAuth()
		srv.Config.Auth.LoginPrompts = [2]string{"Username:", "Password:"} // it knows no others
		srv.Config.Auth.Mechanisms = map[string]func(*protocol.Session) protocol.Mechanism{"OAUTHBEARER": bearer}
		if implicit {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		defer srv.Close()
		for _, mechanism := range []sasl.Client{
			sasl.NewPlainClient("", "joe", "secret"), sasl.NewLoginClient("joe", "secret"),
			sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: "joe", Token: "token"}),
		} {
			conn, err := net.Dial("tcp", srv.Addr)
			if err != nil {
				t.Fatal(err)
			}
			var c *smtp.Client
			if implicit {
				c = smtp.NewClientLMTP(tls.Client(conn, srv.ClientTLS()))
			} else {
				// Its NewClientStartTLS speaks SMTP only.
				c = smtp.NewClientLMTP(startTLS(t, conn, srv.ClientTLS()))
			}
			defer c.Close()
			for _, err := range []error{c.Hello("gosmtp.example.net"), c.Auth(mechanism), c.Mail("joe@example.org", nil), c.Rcpt("bob@example.org", nil)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			handIn(t, c.Data, c.Quit)
			checkSecured(t, rec.Next(t))
		}
	}
}

// startTLS secures a connection for a client that would do it in SMTP alone, and leaves
// the greeting to that client.
func startTLS(t *testing.T, conn net.Conn, config *tls.Config) net.Conn {
	t.Helper()
	c := protocoltest.NewClient(t, conn)
	c.Hello("LHLO")
	c.Cmd("220", "STARTTLS")
	c.Secure(config)
	return &greeted{Conn: c.Conn(), greeting: strings.NewReader("220 secured\r\n")}
}

type greeted struct {
	net.Conn
	greeting *strings.Reader
}

func (g *greeted) Read(p []byte) (int, error) {
	if g.greeting.Len() > 0 {
		return g.greeting.Read(p)
	}
	return g.Conn.Read(p)
}

// TestPythonLMTPSecured: Python's LMTP client with STARTTLS and AUTH.
func TestPythonLMTPSecured(t *testing.T) {
	t.Parallel()
	python := need(t, "/usr/bin/python3")[0]
	srv, rec := secureServer(t, protocol.LMTP)
	host, port, _ := strings.Cut(srv.Addr, ":")
	const script = `
import smtplib, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with smtplib.LMTP(sys.argv[1], int(sys.argv[2])) as c:
    c.ehlo_or_helo_if_needed()
    c.starttls(context=context)
    c.login("joe", "secret")
    c.sendmail("joe@example.org", ["bob@example.org"], sys.stdin.read())
`
	run(t, strings.ReplaceAll(secureMessage, "\r\n", "\n"), python, "-c", script, host, port)
	checkSecured(t, rec.Next(t))
}

// TestPostfixSecured: Postfix passes mail on over SMTP and over LMTP, both with
// STARTTLS and AUTH.
func TestPostfixSecured(t *testing.T) {
	t.Parallel()
	for _, mode := range []protocol.Mode{protocol.SMTP, protocol.LMTP} {
		t.Run(mode.String(), func(t *testing.T) {
			srv, rec := secureServer(t, mode)
			host, port, _ := strings.Cut(srv.Addr, ":")
			client := strings.ToLower(mode.String())
			next := client + ":[" + host + "]:" + port
			main := strings.ReplaceAll(`
relay_domains = example.org
relay_transport = NEXT
mydestination =
CLIENT_tls_security_level = encrypt
CLIENT_sasl_auth_enable = yes
CLIENT_sasl_password_maps = static:joe:secret
CLIENT_sasl_security_options =
`, "CLIENT", client)
			p := startPostfix(t, tempDir(t), strings.ReplaceAll(main, "NEXT", next), `
lmtp      unix  -       -       n       -       -       lmtp
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
`)
			id := p.submit(t, "joe@example.org", "", []string{"bob@example.org"}, []byte(secureMessage))
			p.gone(t, id)
			for _, d := range p.deliveries(id) {
				if d.status != "sent" {
					t.Errorf("delivery %+v", d)
				}
			}
			checkSecured(t, rec.Next(t))
		})
	}
}

// TestEximSecured: Exim, with STARTTLS and AUTH.
func TestEximSecured(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	within := eximWithin(t, dir, newAccounts(t, dir, eximUser))
	srv, rec := secureServer(t, protocol.SMTP)
	host, port, _ := strings.Cut(srv.Addr, ":")
	x := startExim(t, dir, within, firstAccount,
		"MAIN", "domainlist lmtpd_domains = example.org\n", "ACL", "",
		"ROUTERS", strings.ReplaceAll(`
next:
  driver = manualroute
  route_list = * HOST
  self = send
  transport = next
`, "HOST", host),
		"TRANSPORTS", strings.ReplaceAll(`
next:
  driver = smtp
  port = PORT
  allow_localhost
  hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_hosts =
  tls_try_verify_hosts =
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^joe^secret
`, "PORT", port), "RETRY", "")
	id := x.submit(t, "joe@example.org", []string{"bob@example.org"}, []byte(secureMessage))
	x.gone(t, id)
	checkSecured(t, rec.Next(t))
}

// TestFetchmailSecured: fetchmail knows AUTH where it hands mail on, but no TLS.
func TestFetchmailSecured(t *testing.T) {
	t.Parallel()
	fetchmail := need(t, "fetchmail")[0]
	rec := protocoltest.NewRecorder()
	srv := protocoltest.NewUnstartedServer(protocol.SMTP, rec)
	srv.Config.Auth = secureAuth()
	srv.Config.Auth.AllowPlaintext = true
	srv.Start()
	defer srv.Close()
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
	cmd.Stdin = strings.NewReader("poll 127.0.0.1 protocol POP3 port " + port + " auth password esmtpname joe esmtppassword secret" +
		" user joe password secret sslproto '' smtphost " + strings.Replace(srv.Addr, ":", "/", 1) + " smtpname bob@example.org fetchall keep\n")
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", "USER=joe", "LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fetchmail: %v\n%s", err, out)
	}
	if m := rec.Next(t); m.With != "ESMTPA" || !strings.Contains(string(m.Body), "Hello.") {
		t.Errorf("message %+v", m)
	}
}
