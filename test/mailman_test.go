package test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/protocol/relay"
)

// mailmanRunner answers as Mailman 3's LMTP runner does, which is built on the same
// library: every RCPT is accepted, and after the data there is a reply for each
// recipient, 550 for what is no list. It prints what it took.
const mailmanRunner = `
import asyncio, sys
from aiosmtpd.lmtp import LMTP
lists = {"ant@example.org", "bee@example.org"}
subaddresses = {"admin", "bounces", "confirm", "join", "leave", "owner", "request", "subscribe", "unsubscribe"}

class Runner:
    async def handle_RCPT(self, server, session, envelope, to, options):
        envelope.rcpt_tos.append(to)
        return "250 Ok"

    async def handle_DATA(self, server, session, envelope):
        replies = []
        for to in envelope.rcpt_tos:
            local, _, domain = to.lower().partition("@")
            local = local.partition("+")[0]
            name, _, sub = local.rpartition("-")
            if local + "@" + domain in lists:
                name, sub = local, ""
            if name + "@" + domain not in lists or sub and sub not in subaddresses:
                replies.append("550 Requested action not taken: mailbox unavailable")
                continue
            queue = {"": "in", "owner": "in", "admin": "in", "bounces": "bounces"}.get(sub, "command")
            print(queue, name, sub or "-", envelope.mail_from, len(envelope.content), flush=True)
            replies.append("250 Ok")
        return "\r\n".join(replies)

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
server = loop.run_until_complete(loop.create_server(lambda: LMTP(Runner(), enable_SMTPUTF8=True), "127.0.0.1", 0))
print("port", server.sockets[0].getsockname()[1], flush=True)
loop.run_forever()
`

// startMailman runs mailmanRunner and returns its port on loopback. Its lines are
// "QUEUE LIST SUBADDRESS SENDER SIZE".
func startMailman(t *testing.T) (took *lines, port string) {
	t.Helper()
	python := need(t, "/usr/bin/python3")[0]
	if err := exec.Command(python, "-c", "import aiosmtpd.lmtp").Run(); err != nil {
		if require {
			t.Fatalf("no aiosmtpd here: %v, although LMTPD_TEST_REQUIRE=1; test/setup.sh installs it", err)
		}
		t.Skip("no aiosmtpd here; test/setup.sh installs it")
	}
	cmd := exec.Command(python, "-u", "-c", mailmanRunner)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := start(t, "Mailman's runner", cmd)
	return p.stdout, p.stdout.await(t, `^port (\d+)$`)[1]
}

// TestMailman: recipients that are lists go to Mailman's LMTP runner, the others to the
// daemon; each has the reply of where it went.
func TestMailman(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "bob")
	took, port := startMailman(t)
	isList := func(r *protocol.Recipient) bool {
		name := strings.ToLower(r.Path.Local)
		for _, sub := range []string{"-admin", "-owner", "-request", "-join", "-leave"} {
			name = strings.TrimSuffix(name, sub)
		}
		return name == "ant" || name == "bee" || name == "deleted"
	}
	mailman := &relay.Relay{Mode: protocol.LMTP, Network: "tcp", Addr: "127.0.0.1:" + port}
	rest := &relay.Relay{Mode: protocol.LMTP, Network: "unix", Addr: s.sock}
	srv := protocoltest.NewLMTPServer(protocol.Split(isList, mailman, rest))
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	message := "Subject: to lists\r\n\r\nHello.\r\n"
	got := c.Send("ann@example.net", []string{
		"bob@example.org", "ant@example.org", "deleted@example.org", "unknown@example.org", "Bee-Join@example.org", "ant-owner@example.org", "ant@example.org",
	}, message, 7)
	for i, want := range []string{"250 2.0.0 ", "250 2.0.0 Ok", "550 5.0.0 Requested action", "550 5.1.1 ", "250 2.0.0 Ok", "250 2.0.0 Ok", "250 2.0.0 Ok"} {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("reply %d: %q, want %q", i, got[i], want)
		}
	}
	for _, want := range []string{"in ant - ann@example.net 29", "command bee join ann@example.net 29", "in ant owner ann@example.net 29"} {
		took.await(t, "^"+want+"$")
	}
	if n := len(messages(t, filepath.Join(s.maildir("bob")))); n != 1 {
		t.Errorf("%d messages for bob", n)
	}
}
