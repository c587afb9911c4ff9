package test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// virtualSite is Postfix and lmtpd as contrib/postfix describes them for
// virtual users: one mail user owns everything.
type virtualSite struct {
	*postfix
	agent *agent
	dir   string
	owner *syscall.Credential
	sock  string
}

func (s *virtualSite) maildir(user string) string {
	return filepath.Join(s.dir, "mail", user, "Maildir")
}

// startVirtualSite: users are local parts of example.org.
func startVirtualSite(t *testing.T, users []string, main string) *virtualSite {
	t.Helper()
	needRoot(t, "start Postfix")
	need(t, "postfix")
	s := &virtualSite{dir: tempDir(t), owner: mailUser(t)}
	run := filepath.Join(s.dir, "run")
	s.sock = filepath.Join(run, "lmtp.sock")
	mkdir(t, run, s.owner)
	var table strings.Builder
	for _, u := range users {
		home := filepath.Join(s.dir, "mail", u)
		mkdir(t, home, s.owner)
		fmt.Fprintf(&table, "%s@example.org:::::%s::\n", u, home)
	}
	writeFile(t, filepath.Join(s.dir, "users"), table.String())
	s.agent = startLMTPD(t, agentOptions{
		dir:    s.dir,
		config: contrib(t, "lmtpd.virtual.toml", "/run/lmtpd", run, "/etc/lmtpd", s.dir),
		as:     s.owner,
	})
	s.postfix = startPostfix(t, s.dir,
		contrib(t, "main.cf.virtual", "/run/lmtpd", run)+main, contrib(t, "master.cf"))
	return s
}

const header = "From: Sender <sender@example.net>\r\n" +
	"To: someone@example.org\r\n" +
	"Subject: test\r\n" +
	"Date: Mon, 02 Jan 2006 15:04:05 -0700\r\n" +
	"Message-ID: <1@example.net>\r\n"

func TestPostfixVirtual(t *testing.T) {
	t.Parallel()
	const eight = header + "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: 8bit\r\n\r\n"
	cases := []struct {
		name, user, parameters, message string
	}{
		{"plain", "plain", "", header + "\r\nHello.\r\n"},
		{"8-bit", "eight", "BODY=8BITMIME", eight + "Grüße, 日本語\r\nLatin 1: \xe9\xff\r\n"},
		{"dots", "dots", "", header + "\r\n.\r\n..\r\n...\r\n.x\r\n\r\n.\r\n"},
		{"NUL", "nul", "", header + "\r\na\x00b\r\n\x00\r\n"},
		{"long line", "long", "", header + "\r\n" + strings.Repeat("0123456789", 500) + "\r\nend\r\n"},
		{"no body", "nobody", "", header},
		{"empty body", "emptybody", "", header + "\r\n"},
		{"no header", "noheader", "", "\r\nbody\r\n"},
		{"blank lines", "blank", "", header + "\r\n\r\n\r\n"},
		{"UTF-8 header", "utf8", "SMTPUTF8 BODY=8BITMIME",
			strings.Replace(eight, "Subject: test", "Subject: Grüße, 日本語", 1) + "Grüße\r\n"},
		{"UTF-8 address", "пётр", "SMTPUTF8 BODY=8BITMIME",
			strings.Replace(eight, "To: someone@", "To: Пётр <пётр@", 1) + "Привет\r\n"},
	}
	var users []string
	for _, c := range cases {
		users = append(users, c.user)
	}
	s := startVirtualSite(t, append(users, "big", "unended", "cr"), "")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			to := c.user + "@example.org"
			from, with, esmtp := "sender@example.net", "LMTP", "ESMTP"
			if strings.Contains(c.parameters, "SMTPUTF8") {
				from, with, esmtp = "отправитель@example.net", "UTF8LMTP", "UTF8SMTP"
			}
			id := s.submit(t, from, c.parameters, []string{to}, []byte(c.message))
			s.gone(t, id)
			checkStored(t, oneMessage(t, s.maildir(c.user)), trace{
				sender: from, recipient: to, helo: "mta.example.org", with: with,
				then: s.received(id, esmtp, to),
			}, []byte(c.message))
		})
	}
	t.Run("20 MiB", func(t *testing.T) {
		line := []byte("." + strings.Repeat("x", 77) + "\r\n")
		message := append([]byte(header+"\r\n"), bytes.Repeat(line, 20<<20/len(line)+1)...)
		id := s.submit(t, "sender@example.net", "", []string{"big@example.org"}, message)
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("big")), trace{
			sender: "sender@example.net", recipient: "big@example.org", helo: "mta.example.org", with: "LMTP",
			then: s.received(id, "ESMTP", "big@example.org"),
		}, message)
	})
	// What Postfix changes, lmtpd cannot undo.
	t.Run("no final newline", func(t *testing.T) {
		to := "unended@example.org"
		id := s.submitChunk(t, "sender@example.net", []string{to}, []byte(header+"\r\nno end"))
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("unended")), trace{
			sender: "sender@example.net", recipient: to, helo: "mta.example.org", with: "LMTP",
			then: s.received(id, "ESMTP", to),
		}, []byte(header+"\r\nno end\r\n"))
	})
	t.Run("bare CR", func(t *testing.T) {
		to := "cr@example.org"
		id := s.submit(t, "sender@example.net", "", []string{to}, []byte(header+"\r\na\rb\r\n"))
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("cr")), trace{
			sender: "sender@example.net", recipient: to, helo: "mta.example.org", with: "LMTP",
			then: s.received(id, "ESMTP", to),
		}, []byte(header+"\r\na b\r\n"))
	})
	s.agent.stop(t)
}
