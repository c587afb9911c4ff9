package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// patience is how long a contender may take for one reply. It only ends runs
// that hang; nothing is measured by it.
const patience = time.Minute

// client is one LMTP or SMTP session of the load generator.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	lmtp bool
	size bool // the server announces SIZE
	out  []byte
}

// refusal is a reply that is not what a client hopes for.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return strconv.Itoa(r.code) + " " + r.text }

// dial connects to "/path" or "host:port" and introduces itself.
func dial(addr string, lmtp bool) (*client, error) {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	conn, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), lmtp: lmtp}
	if err := c.introduce(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) introduce() error {
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := c.expect(220, nil); err != nil {
		return err
	}
	hello := "EHLO bench.example.net\r\n"
	if c.lmtp {
		hello = "LHLO bench.example.net\r\n"
	}
	if _, err := c.conn.Write([]byte(hello)); err != nil {
		return err
	}
	_, err := c.expect(250, func(line string) {
		c.size = c.size || line == "SIZE" || strings.HasPrefix(line, "SIZE ")
	})
	return err
}

// quit ends the session as a client should.
func (c *client) quit() error {
	defer c.conn.Close()
	if _, err := c.conn.Write([]byte("QUIT\r\n")); err != nil {
		return err
	}
	_, err := c.expect(221, nil)
	return err
}

// reply reads one reply and gives the text of its last line.
func (c *client) reply(each func(line string)) (int, string, error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		if len(line) < 5 {
			return 0, "", fmt.Errorf("reply %q", line)
		}
		code, err := strconv.Atoi(string(line[:3]))
		if err != nil {
			return 0, "", fmt.Errorf("reply %q", line)
		}
		last := line[3] != '-'
		if !last && each == nil {
			continue
		}
		text := strings.TrimRight(string(line[4:]), "\r\n")
		if each != nil {
			each(text)
		}
		if last {
			return code, text, nil
		}
	}
}

func (c *client) expect(want int, each func(line string)) (int, error) {
	code, text, err := c.reply(each)
	if err == nil && code != want {
		err = &refusal{code, text}
	}
	return code, err
}

// errDesync: a reply that leaves no sense in going on with the session.
var errDesync = errors.New("reply out of place")

// send takes one message through one transaction: everything up to DATA in one
// write (RFC 2920), then the message. taken is called with the index of each
// recipient whose copy is acknowledged. An error ends the session; a *refusal
// does not, if it is a recipient's or the message's own.
func (c *client) send(m *message, id uint64, rcpts []string, taken func(i int)) (refused int, err error) {
	c.conn.SetDeadline(time.Now().Add(patience))
	c.out = append(c.out[:0], "MAIL FROM:<sender@example.net>"...)
	if c.size {
		c.out = strconv.AppendInt(append(c.out, " SIZE="...), m.size(), 10)
	}
	c.out = append(c.out, "\r\n"...)
	for _, r := range rcpts {
		c.out = append(append(append(c.out, "RCPT TO:<"...), r...), ">\r\n"...)
	}
	c.out = append(c.out, "DATA\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, err
	}
	if _, err := c.expect(250, nil); err != nil {
		return 0, err
	}
	var accepted []int
	for i := range rcpts {
		code, text, err := c.reply(nil)
		switch {
		case err != nil:
			return 0, err
		case code/100 == 2:
			accepted = append(accepted, i)
		case code == 421:
			return 0, &refusal{code, text}
		}
	}
	refused = len(rcpts) - len(accepted)
	code, text, err := c.reply(nil)
	switch {
	case err != nil:
		return refused, err
	case code != 354 && len(accepted) > 0:
		return refused, &refusal{code, text}
	case code != 354:
		return refused, nil
	case len(accepted) == 0:
		return refused, errDesync
	}
	for _, piece := range m.pieces(id, &c.out) {
		if _, err := c.conn.Write(piece); err != nil {
			return refused, err
		}
	}
	if !c.lmtp { // one reply for all
		if _, err := c.expect(250, nil); err != nil {
			return refused, err
		}
		for _, i := range accepted {
			taken(i)
		}
		return refused, nil
	}
	for _, i := range accepted {
		code, text, err := c.reply(nil)
		switch {
		case err != nil:
			return refused, err
		case code == 421:
			return refused, &refusal{code, text}
		case code/100 == 2:
			taken(i)
		default:
			refused++
		}
	}
	return refused, nil
}
