package test

import (
	"bytes"
	"strings"
	"testing"
)

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
	users = append(users, "big", "unended", "cr", "detail", "queue")
	s := startVirtualSite(t, users, "")
	const sender = "sender@example.net"
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			to, from := c.user+"@example.org", sender
			if strings.Contains(c.parameters, "SMTPUTF8") {
				from = "отправитель@example.net"
			}
			id := s.submit(t, from, c.parameters, []string{to}, []byte(c.message))
			s.gone(t, id)
			checkStored(t, oneMessage(t, s.maildir(c.user)), s.trace(id, from, to), []byte(c.message))
		})
	}
	t.Run("queue id", func(t *testing.T) {
		id := s.submit(t, sender, "", []string{"queue@example.org", "unknown@example.org"}, []byte(header+"\r\n"))
		s.gone(t, id)
		for to, code := range map[string]string{"queue": "250", "unknown": "550"} {
			s.agent.stderr.await(t, ` queue_id=`+id+` .* to=`+to+`@example\.org .* code=`+code+` `)
		}
	})
	t.Run("20 MiB", func(t *testing.T) {
		const to = "big@example.org"
		line := []byte("." + strings.Repeat("x", 77) + "\r\n")
		message := append([]byte(header+"\r\n"), bytes.Repeat(line, 20<<20/len(line)+1)...)
		id := s.submit(t, sender, "", []string{to}, message)
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("big")), s.trace(id, sender, to), message)
	})
	t.Run("detail", func(t *testing.T) {
		const to = "detail+lists@example.org"
		folder := s.maildir("detail") + "/.lists"
		for _, dir := range []string{s.maildir("detail"), folder} {
			makeMaildir(t, dir, s.owner)
		}
		id := s.submit(t, sender, "", []string{to}, []byte(header+"\r\nlist\r\n"))
		s.gone(t, id)
		checkStored(t, oneMessage(t, folder), s.trace(id, sender, to), []byte(header+"\r\nlist\r\n"))
		if n := len(messages(t, s.maildir("detail"))); n != 0 {
			t.Errorf("%d messages in the inbox too", n)
		}
	})
	// What Postfix changes on the way, lmtpd cannot undo.
	t.Run("no final newline", func(t *testing.T) {
		const to = "unended@example.org"
		id := s.submitChunk(t, sender, []string{to}, []byte(header+"\r\nno end"))
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("unended")), s.trace(id, sender, to), []byte(header+"\r\nno end\r\n"))
	})
	t.Run("bare CR", func(t *testing.T) {
		const to = "cr@example.org"
		id := s.submit(t, sender, "", []string{to}, []byte(header+"\r\na\rb\r\n"))
		s.gone(t, id)
		checkStored(t, oneMessage(t, s.maildir("cr")), s.trace(id, sender, to), []byte(header+"\r\na b\r\n"))
	})
	s.agent.stop(t)
}

// TestPostfixOriginalTo: flags=OX and one recipient per transaction, as
// contrib/postfix/README.md says, show the address before an alias was applied.
func TestPostfixOriginalTo(t *testing.T) {
	t.Parallel()
	main := contrib(t, "main.cf.virtual", "/run/lmtpd", "RUN",
		"lmtpd_destination_recipient_limit = 100\n", "lmtpd_destination_recipient_limit = 1\n")
	main += "virtual_alias_maps = inline:{alias@example.org=user@example.org}\n"
	s := startVirtualSiteWith(t, []string{"user"}, main, contrib(t, "master.cf", "flags=X\n", "flags=OX\n"))
	const sender = "sender@example.net"
	id := s.submit(t, sender, "", []string{"alias@example.org"}, []byte(header+"\r\n"))
	s.gone(t, id)
	h := s.trace(id, sender, "user@example.org")
	h.then = "X-Original-To: alias@example\\.org\n" + s.received(id, "ESMTP", "alias@example.org")
	checkStored(t, oneMessage(t, s.maildir("user")), h, []byte(header+"\r\n"))
}
