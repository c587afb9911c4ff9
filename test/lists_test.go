package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// listRecipients are a user, a list and addresses of lists, and what Mailman
// says that it took.
var listRecipients = []string{
	"ant@example.org", "bee-join@example.org", "ant-confirm+0f3a-77@example.org", "bee-bounces+ann=example.net@example.org",
}

var listQueues = []string{"in ant -", "command bee join", "command ant confirm", "bounces bee bounces"}

// TestPostfixLists: contrib/postfix for a list manager beside lmtpd, with recipient
// checks at RCPT.
func TestPostfixLists(t *testing.T) {
	t.Parallel()
	took, port := startMailman(t)
	table := filepath.Join(tempDir(t), "lists.regexp")
	writeFile(t, table, contrib(t, "lists.regexp", ":8024", ":"+port))
	main := contrib(t, "main.cf.virtual", "/run/lmtpd", "RUN") + contrib(t, "main.cf.verify") +
		contrib(t, "main.cf.lists", "/etc/postfix/lists.regexp", table)
	s := startVirtualSiteWith(t, []string{"bob", "antonia"}, main, contrib(t, "master.cf")+stockLMTP)

	const sender = "sender@example.net"
	message := []byte(header + "\r\nHello.\r\n")
	id := s.submit(t, sender, "", append([]string{"bob@example.org", "antonia@example.org"}, listRecipients...), message)
	s.gone(t, id)
	for _, user := range []string{"bob", "antonia"} {
		oneMessage(t, s.maildir(user))
	}
	for _, queue := range listQueues {
		took.await(t, "^"+queue+" "+sender+" ")
	}
	for _, d := range s.deliveries(id) {
		if at := strings.Contains(d.relay, ":"+port); d.status != "sent" || at == (d.to == "bob@example.org" || d.to == "antonia@example.org") {
			t.Errorf("%+v", d)
		}
	}
	// What is neither a list nor a user.
	for _, unknown := range []string{"cat@example.org", "cat-owner@example.org", "bob-owner@example.org"} {
		c := dial(t, s.addr)
		c.expect(t, "250", "EHLO client.example.net")
		c.expect(t, "250", "MAIL FROM:<"+sender+">")
		c.expect(t, "550", "RCPT TO:<"+unknown+">")
		c.expect(t, "221", "QUIT")
	}
	s.agent.stop(t)
}

// stockLMTP is the line of every master.cf, which the lists use.
const stockLMTP = "lmtp unix - - n - - lmtp\n"

// TestPostfixListsLocal: the same beside login accounts, whose names Postfix knows.
func TestPostfixListsLocal(t *testing.T) {
	t.Parallel()
	took, port := startMailman(t)
	dir := tempDir(t)
	acc := newAccounts(t, dir, "lmtpd-bob")
	run := filepath.Join(dir, "run")
	mkdir(t, run, mailUser(t))
	a := startLMTPD(t, agentOptions{
		dir: dir, config: contrib(t, "lmtpd.local.toml", "/run/lmtpd", run), as: mailUser(t), within: acc.capable(t),
	})
	table := filepath.Join(dir, "lists.regexp")
	writeFile(t, table, contrib(t, "lists.regexp", ":8024", ":"+port))
	p := startPostfix(t, dir, contrib(t, "main.cf.local", "/run/lmtpd", run)+contrib(t, "main.cf.lists", "/etc/postfix/lists.regexp", table),
		contrib(t, "master.cf")+stockLMTP, acc.within...)
	id := p.submit(t, "sender@example.net", "", append([]string{"lmtpd-bob@example.org"}, listRecipients...), []byte(header+"\r\n"))
	p.gone(t, id)
	oneMessage(t, filepath.Join(acc.home("lmtpd-bob"), "Maildir"))
	for _, queue := range listQueues {
		took.await(t, "^"+queue+" ")
	}
	c := dial(t, p.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "550", "RCPT TO:<cat@example.org>")
	a.stop(t)
}

// mailmanLists is a directory as Mailman keeps it for its lists.
func mailmanLists(t *testing.T, dir string) string {
	t.Helper()
	lists := filepath.Join(dir, "mailman3/lists")
	for _, name := range []string{"ant.example.org", "bee.example.org"} {
		mkdir(t, filepath.Join(lists, name), nil)
	}
	return lists
}

// TestEximLists: contrib/exim for a list manager beside lmtpd, with callouts.
func TestEximLists(t *testing.T) {
	t.Parallel()
	took, port := startMailman(t)
	s := startEximVirtualWith(t, []string{"bob", "antonia"}, eximSnippets{
		routers:    contribExim(t, "router.lists", "/var/lib/mailman3/lists", mailmanLists(t, tempDir(t))),
		transports: contribExim(t, "transport.lists", "8024", port),
	})
	const sender = "sender@example.net"
	id := s.submit(t, sender, append([]string{"bob@example.org", "antonia@example.org"}, listRecipients...), []byte(header+"\r\n"))
	s.gone(t, id)
	for _, user := range []string{"bob", "antonia"} {
		oneMessage(t, s.maildir(user))
	}
	for _, queue := range listQueues {
		took.await(t, "^"+queue+" "+sender+" ")
	}
	c := dial(t, s.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<"+sender+">")
	for _, unknown := range []string{"cat@example.org", "cat-owner@example.org", "bob-owner@example.org"} {
		c.expect(t, "550", "RCPT TO:<"+unknown+">")
	}
	c.expect(t, "221", "QUIT")
	s.agent.stop(t)
}

// TestEximListsLocal: the same beside login accounts.
func TestEximListsLocal(t *testing.T) {
	t.Parallel()
	took, port := startMailman(t)
	s := startEximLocal(t, []string{"lmtpd-bob"}, eximSnippets{
		routers:    contribExim(t, "router.lists", "/var/lib/mailman3/lists", mailmanLists(t, tempDir(t))),
		transports: contribExim(t, "transport.lists", "8024", port),
	})
	id := s.submit(t, "sender@example.net", append([]string{"lmtpd-bob@example.org"}, listRecipients...), []byte(header+"\r\n"))
	s.gone(t, id)
	oneMessage(t, s.maildir("lmtpd-bob"))
	for _, queue := range listQueues {
		took.await(t, "^"+queue+" ")
	}
	c := dial(t, s.addr)
	c.expect(t, "250", "EHLO client.example.net")
	c.expect(t, "250", "MAIL FROM:<sender@example.net>")
	c.expect(t, "550", "RCPT TO:<cat@example.org>")
	s.agent.stop(t)
}
