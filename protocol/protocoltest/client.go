package protocoltest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Client follows a script: it sends what it is told, octet for octet, and fails
// the test where the server answers otherwise.
type Client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// patience bounds the wait for a server that has hung; no test depends on it.
const patience = 30 * time.Second

// Dial connects to the server. The greeting is left to be read.
func (s *Server) Dial(t testing.TB) *Client {
	t.Helper()
	if s.pipes != nil {
		return s.dialPipe(t)
	}
	conn, err := net.Dial(s.Network, s.Addr)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	return NewClient(t, conn)
}

// NewClient makes a client of a connection and closes it when the test ends.
func NewClient(t testing.TB, conn net.Conn) *Client {
	t.Cleanup(func() { conn.Close() })
	return &Client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

// Conn is the connection.
func (c *Client) Conn() net.Conn { return c.conn }

// Raw sends octets as they are.
func (c *Client) Raw(s string) {
	c.t.Helper()
	c.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write %.60q: %v", s, err)
	}
}

// Reply reads one reply, of several lines perhaps, without its last CR LF.
func (c *Client) Reply() string {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			c.t.Fatalf("read reply: %v (so far %q)", err, b.String())
		}
		if len(line) < 4 || !strings.HasSuffix(line, "\r\n") {
			c.t.Fatalf("malformed reply line %q", line)
		}
		if line[3] == ' ' || line[3] == '\r' {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
	}
}

// Expect reads one reply and fails unless it begins with want, such as "250" or
// "452 4.5.3". It returns the reply.
func (c *Client) Expect(want string) string {
	c.t.Helper()
	got := c.Reply()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("got reply %q, want %q", got, want)
	}
	return got
}

// Cmd sends a command line and expects a reply.
func (c *Client) Cmd(want, format string, a ...any) string {
	c.t.Helper()
	line := fmt.Sprintf(format, a...)
	c.Raw(line + "\r\n")
	got := c.Reply()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.80q: got reply %q, want %q", line, got, want)
	}
	return got
}

// Hello reads the greeting and greets back as an LMTP or SMTP client.
func (c *Client) Hello(verb string) {
	c.t.Helper()
	c.Expect("220")
	c.Cmd("250", "%s client.example.org", verb)
}

// Send carries out one transaction and gives the replies after the data: n of
// them, or fewer if the connection ends. The body gets dot-stuffed; its line ends
// must be CR LF.
func (c *Client) Send(from string, rcpts []string, body string, n int) []string {
	c.t.Helper()
	c.Cmd("250", "MAIL FROM:<%s>", from)
	for _, r := range rcpts {
		c.Cmd("250", "RCPT TO:<%s>", r)
	}
	c.Cmd("354", "DATA")
	c.Raw(Stuff(body))
	var replies []string
	for range n {
		replies = append(replies, c.Reply())
	}
	return replies
}

// EOF expects that the server closes without another octet.
func (c *Client) EOF() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 || err != nil && !isReset(err) {
		c.t.Fatalf("want end of connection, got %q, %v", rest, err)
	}
}

func isReset(err error) bool { return strings.Contains(err.Error(), "reset by peer") }

// Close closes the connection.
func (c *Client) Close() { c.conn.Close() }

// Stuff makes data of a body: dots doubled at the start of lines, the final dot
// appended (RFC 5321 section 4.5.2).
func Stuff(body string) string {
	b := bytes.ReplaceAll([]byte("\r\n"+body), []byte("\r\n."), []byte("\r\n.."))
	if !bytes.HasSuffix(b, []byte("\r\n")) {
		b = append(b, "\r\n"...)
	}
	return string(b[2:]) + ".\r\n"
}

// Code is the reply code at the front of a reply, 0 if there is none.
func Code(reply string) int {
	n, _ := strconv.Atoi(reply[:min(3, len(reply))])
	return n
}
