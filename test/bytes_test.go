package test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// plainSite is lmtpd without an MTA, run by whoever runs the tests.
type plainSite struct {
	*agent
	dir  string
	sock string
}

func (s *plainSite) home(user string) string { return filepath.Join(s.dir, "mail", user) }

func (s *plainSite) maildir(user string) string { return filepath.Join(s.home(user), "Maildir") }

// startPlainSite: users are local parts of example.org.
func startPlainSite(t *testing.T, users ...string) *plainSite {
	t.Helper()
	s := &plainSite{dir: tempDir(t)}
	s.sock = filepath.Join(s.dir, "lmtp.sock")
	var table strings.Builder
	for _, u := range users {
		mkdir(t, s.home(u), nil)
		fmt.Fprintf(&table, "%s@example.org:::::%s::\n", u, s.home(u))
	}
	writeFile(t, filepath.Join(s.dir, "users"), table.String())
	s.agent = startLMTPD(t, agentOptions{dir: s.dir, config: fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
name = "lmtp"
address = "unix:%s"
[[userdb]]
type = "passwd-file"
path = "%s/users"
`, s.sock, s.dir)})
	return s
}

// TestBytes sends what an MTA would alter before it got here: all of it is
// stored as it came, but for CRLF, which becomes LF. Where the message has no
// header of its own, an empty line keeps its text out of ours.
func TestBytes(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "one", "two")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	cases := map[string]string{
		"empty":          "",
		"empty line":     "\r\n",
		"only a dot":     ".\r\n",
		"dots":           header + "\r\n.\r\n..\r\n.a\r\n...\r\n",
		"every octet":    header + "\r\n" + string(every) + "\r\n",
		"bare CR":        header + "\r\na\rb\r\r\nc\r\n\r\r\n",
		"bare LF":        header + "\r\na\nb\n\n.\nc\r\n",
		"NUL only":       "\x00\r\n",
		"no header":      "no header\r\nat all\r\n",
		"long line":      header + "\r\n" + strings.Repeat("x", 1<<20) + "\r\n",
		"invalid UTF-8":  header + "X: \xff\xfe\r\n\r\n\xc3\x28\r\n",
		"8 MiB of lines": header + "\r\n" + strings.Repeat(".\r\n\r\n", 8<<20/5),
	}
	headless := []string{"only a dot", "NUL only", "no header"}
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	for name, message := range cases {
		to := []string{"one@example.org", "two@example.org", "one@example.org"}
		for i, r := range c.send(t, "sender@example.net", "", to, []byte(message), len(to)) {
			if !strings.HasPrefix(r, "250 2.0.0 ") {
				t.Errorf("%s: recipient %d: %q", name, i, r)
			}
		}
		if slices.Contains(headless, name) {
			message = "\r\n" + message
		}
		for _, user := range []string{"one", "two"} {
			m := oneMessage(t, s.maildir(user))
			checkStored(t, m, trace{
				sender: "sender@example.net", recipient: user + "@example.org",
				helo: "client.example.net", with: "LMTP",
			}, []byte(message))
			removeMessages(t, s.maildir(user))
		}
	}
	c.expect(t, "221", "QUIT")
	s.stop(t)
}

// TestReturnPathReplaced: a Return-Path of the message's own is not believed.
func TestReturnPathReplaced(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "user")
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	message := []byte("Return-Path: <other@example.com>\r\n" + header + "return-path:\r\n <folded@example.com>\r\n\r\nReturn-Path: <body>\r\n")
	c.send(t, "", "", []string{"user@example.org"}, message, 1)
	checkStored(t, oneMessage(t, s.maildir("user")),
		trace{recipient: "user@example.org", helo: "client.example.net", with: "LMTP"},
		[]byte(header+"\r\nReturn-Path: <body>\r\n"))
	// A copy that comes back is a loop, whatever its Return-Path.
	again := append([]byte("Delivered-To: user@example.org\r\n"), message...)
	if r := c.send(t, "", "", []string{"user@example.org"}, again, 1)[0]; !strings.HasPrefix(r, "554 5.4.6 ") {
		t.Errorf("loop: %q", r)
	}
	if !bytes.Contains(oneMessage(t, s.maildir("user")).content, []byte("\nReturn-Path: <body>\n")) {
		t.Error("the first copy is gone")
	}
}

// TestOriginalRecipient: X-Original-To is what ORCPT says (RFC 3461 section
// 4.2), where it differs from the recipient.
func TestOriginalRecipient(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "user")
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	for orcpt, original := range map[string]string{
		"rfc822;Alias@Example.org":     "Alias@Example.org",
		"rfc822;a+2Bb+3Dc@example.org": "a+b=c@example.org",
		"rfc822;user@example.org":      "",
	} {
		c.expect(t, "250", "MAIL FROM:<>")
		c.expect(t, "250", "RCPT TO:<user@example.org> ORCPT="+orcpt)
		c.expect(t, "354", "DATA")
		c.body(t, []byte(header+"\r\n"))
		if r := c.reply(t); !strings.HasPrefix(r, "250 2.0.0 ") {
			t.Fatal(r)
		}
		checkStored(t, oneMessage(t, s.maildir("user")), trace{
			recipient: "user@example.org", original: original, helo: "client.example.net", with: "LMTP",
		}, []byte(header+"\r\n"))
		removeMessages(t, s.maildir("user"))
	}
	// No line of the client's own in the header.
	c.expect(t, "250", "MAIL FROM:<>")
	c.expect(t, "501 5.5.4", "RCPT TO:<user@example.org> ORCPT=rfc822;x+0AEvil:+20y@example.org")
}
