package test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// client speaks SMTP or LMTP, octet by octet as the test says.
type client struct {
	conn net.Conn
	in   *bufio.Reader
}

// dial connects to "/path" or "host:port" and reads the greeting.
func dial(t *testing.T, address string) *client {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	c := &client{conn: conn, in: bufio.NewReader(conn)}
	if r := c.reply(t); !strings.HasPrefix(r, "220 ") {
		t.Fatalf("greeting %q", r)
	}
	return c
}

// reply reads one reply; the lines of a long one are joined by LF.
func (c *client) reply(t *testing.T) string {
	t.Helper()
	var all []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatalf("reading a reply after %q: %v", all, err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		all = append(all, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(all, "\n")
		}
	}
}

func (c *client) write(t *testing.T, b []byte) {
	t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// cmd sends a command and returns its reply.
func (c *client) cmd(t *testing.T, line string) string {
	t.Helper()
	c.write(t, []byte(line+"\r\n"))
	return c.reply(t)
}

// expect sends a command and fails unless the reply begins with code.
func (c *client) expect(t *testing.T, code, line string) string {
	t.Helper()
	r := c.cmd(t, line)
	if !strings.HasPrefix(r, code) {
		t.Fatalf("%s: %q, want %s", line, r, code)
	}
	return r
}

// body sends the octets of a message after DATA's 354, dots stuffed, and the
// end mark. A message that does not end in CRLF cannot be sent this way.
func (c *client) body(t *testing.T, message []byte) {
	t.Helper()
	if len(message) > 0 && !bytes.HasSuffix(message, []byte("\r\n")) {
		t.Fatal("the message does not end in CRLF")
	}
	stuffed := bytes.ReplaceAll(message, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(stuffed, []byte(".")) {
		stuffed = append([]byte("."), stuffed...)
	}
	c.write(t, append(stuffed, ".\r\n"...))
}

// send runs one transaction and returns the replies after the end of the
// message: one, or with LMTP one for each recipient.
func (c *client) send(t *testing.T, from, parameters string, to []string, message []byte, replies int) []string {
	t.Helper()
	c.expect(t, "250", strings.TrimSuffix("MAIL FROM:<"+from+"> "+parameters, " "))
	for _, rcpt := range to {
		c.expect(t, "250", "RCPT TO:<"+rcpt+">")
	}
	c.expect(t, "354", "DATA")
	c.body(t, message)
	got := make([]string, replies)
	for i := range got {
		got[i] = c.reply(t)
	}
	return got
}

// end expects the server to close the connection without another word.
func (c *client) end(t *testing.T) {
	t.Helper()
	if rest, err := io.ReadAll(c.in); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		t.Errorf("instead of the end of the connection: %q, %v", rest, err)
	}
}
