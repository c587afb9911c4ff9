package protocol_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// printed sends a message over SMTP to a Debug handler, with MAIL parameters, and
// gives what that printed.
func printed(t *testing.T, params, message string) string {
	t.Helper()
	var page bytes.Buffer
	srv := protocoltest.NewUnstartedServer(protocol.SMTP, protocol.Debug(&page))
	srv.Config.Newlines = protocol.NewlinesPreserve
	srv.Start()
	defer srv.Close()
	sendTo(t, srv.Addr, params, message)
	srv.Close()
	return page.String()
}

func sendTo(t *testing.T, addr, params, message string) {
	t.Helper()
	srv := &protocoltest.Server{Network: "tcp", Addr: addr}
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Cmd("250", "MAIL FROM:<author@example.com>%s", params)
	c.Cmd("250", "RCPT TO:<recipient@example.com>")
	c.Cmd("354", "DATA")
	c.Raw(protocoltest.Stuff(message))
	c.Expect("250")
	c.Cmd("221", "QUIT")
	c.EOF()
}

const simpleMessage = "Content-Type: text/plain; charset=\"us-ascii\"\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Transfer-Encoding: 7bit\r\n" +
	"To: Recipient <recipient@example.com>\r\n" +
	"From: Author <author@example.com>\r\n" +
	"Subject: Simple test message\r\n" +
	"\r\n" +
	"This is the body of the message.\r\n"

func TestDebugFrame(t *testing.T) {
	const head = "---------- MESSAGE FOLLOWS ----------\n"
	const foot = "------------ END MESSAGE ------------\n"
	for _, c := range []struct{ params, message, want string }{
		{"", simpleMessage, strings.ReplaceAll(strings.Replace(simpleMessage, "\r\n\r\n", "\r\nX-Peer: 127.0.0.1\r\n\r\n", 1), "\r\n", "\n")},
		{" size=236 Body=8BitMIME", "A: b\r\n\r\nc\r\n", "mail options: ['SIZE=236', 'BODY=8BITMIME']\n\nA: b\nX-Peer: 127.0.0.1\n\nc\n"},
		{"", "A: b\r\n", "A: b\n"},
		{"", "\r\n\r\nc\rd\ne", "X-Peer: 127.0.0.1\n\n\nc\nd\ne\n"},
		{"", "A: gr\xfc\xdfe \xe2\x82 \xe2\x82\xac\xff\r\n", "A: gr\ufffd\ufffde \ufffd €\ufffd\n"},
		{"", "", ""},
	} {
		if got := printed(t, c.params, c.message); got != head+c.want+foot {
			t.Errorf("%q with %q: printed %q, want %q", c.message, c.params, got, head+c.want+foot)
		}
	}
}

func TestDebugRcptOptions(t *testing.T) {
	var page bytes.Buffer
	tx := &protocol.Transaction{Rcpts: []protocol.Recipient{{RawParams: "ORCPT=rfc822;x"}, {RawParams: `XWORD=it's`}, {RawParams: `XWORD='"\`}}}
	if err := protocol.Debug(&page).Deliver(context.Background(), tx, protocol.NewBody(strings.NewReader(""))); err != nil {
		t.Fatal(err)
	}
	if want := "rcpt options: ['ORCPT=RFC822;X', \"XWORD=IT'S\", 'XWORD=\\'\"\\\\']\n\n"; !strings.Contains(page.String(), want) {
		t.Errorf("printed %q, want %q in it", page.String(), want)
	}
}

// The reference servers print the port that they got, then what they receive.
const (
	smtpdServer = `
import asyncore, smtpd, sys
server = smtpd.DebuggingServer(("127.0.0.1", 0), None, decode_data=True)
print(server.socket.getsockname()[1], flush=True)
asyncore.loop(timeout=0.1)
`
	aiosmtpdServer = `
import asyncio, aiosmtpd.handlers, aiosmtpd.smtp
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
handler = aiosmtpd.handlers.Debugging()
server = loop.run_until_complete(loop.create_server(lambda: aiosmtpd.smtp.SMTP(handler, enable_SMTPUTF8=True), "127.0.0.1", 0))
print(server.sockets[0].getsockname()[1], flush=True)
loop.run_forever()
`
)

// reference sends a message to a Python server and gives what that printed.
func reference(t *testing.T, program, params, message string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-u", "-W", "ignore", "-c", program)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no Python: %v", err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	out := bufio.NewReader(stdout)
	port, err := out.ReadString('\n')
	if err != nil {
		t.Skip("this Python has no such module")
	}
	sendTo(t, "127.0.0.1:"+strings.TrimSpace(port), params, message)
	var page strings.Builder
	for !strings.HasSuffix(page.String(), "END MESSAGE ------------\n") {
		line, err := out.ReadString('\n')
		page.WriteString(line)
		if err == io.EOF {
			t.Fatalf("the reference ended after %q", page.String())
		}
	}
	return page.String()
}

var referenceMessages = []string{
	simpleMessage, "A: b\r\n\r\n", "A: b\r\n", "\r\nno header\r\n", ".\r\n..\r\n.x\r\n\r\n\r\n.\r\n",
	"Subject: a\r\n folded\r\n\r\nzwei\r\n\r\n\r\nthree\r\n", "A: Grüße\r\n\r\n€\r\n",
}

// TestDebugAsSmtpd: what the DebuggingServer of Python 3.11 prints of text.
func TestDebugAsSmtpd(t *testing.T) {
	for _, m := range referenceMessages {
		if strings.HasSuffix(m, "\r\n\r\n") || strings.Contains(m, "ü") {
			continue // it loses a blank line at the end, and refuses octets outside ASCII
		}
		if got, want := printed(t, "", m), reference(t, smtpdServer, "", m); got != want {
			t.Errorf("%q: printed %q, smtpd %q", m, got, want)
		}
	}
}

var aiosmtpdPeer = regexp.MustCompile(`(?m)^X-Peer: \('127.0.0.1', \d+\)$`)

// TestDebugAsAiosmtpd: what the Debugging handler of aiosmtpd prints, but for the
// X-Peer line, which shows a Python tuple there.
func TestDebugAsAiosmtpd(t *testing.T) {
	for _, m := range append([]string{"A: gr\xfc\xdfe \xe2\x82 \xe2\x82\xac\xff \xf0\x9f\x98 \xed\xa0\x80 \xc0\xaf\r\n\r\nb\rc\nd\r\n"}, referenceMessages...) {
		for _, params := range []string{"", " size=36 body=8bitmime", " SMTPUTF8"} {
			want := aiosmtpdPeer.ReplaceAllString(reference(t, aiosmtpdServer, params, m), "X-Peer: 127.0.0.1")
			if got := printed(t, params, m); got != want {
				t.Errorf("%q with %q: printed %q, aiosmtpd %q", m, params, got, want)
			}
		}
	}
}
