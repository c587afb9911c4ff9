package relay

import (
	"bufio"
	"bytes"
)

// content passes a message on as DATA wants it: CR LF at the end of every line, in place
// of each CR and LF that stands alone too (RFC 5321 section 2.3.8), so that no server can
// see an end where there is none; and a second dot before one that begins a line
// (section 4.5.2).
type content struct {
	dst *bufio.Writer
	cr  bool // the last octet was a CR, whose line end has been written
	mid bool // within a line
}

// Write takes the next piece of the message.
func (c *content) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if c.cr && p[0] == '\n' {
			c.cr = false
			p = p[1:]
			continue
		}
		c.cr = false
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			c.text(p)
			break
		}
		c.text(p[:i])
		c.dst.WriteString("\r\n")
		c.mid, c.cr = false, p[i] == '\r'
		p = p[i+1:]
	}
	// The bufio.Writer keeps its first error.
	if _, err := c.dst.Write(nil); err != nil {
		return 0, err
	}
	return n, nil
}

func (c *content) text(p []byte) {
	if len(p) == 0 {
		return
	}
	if !c.mid && p[0] == '.' {
		c.dst.WriteByte('.')
	}
	c.mid = true
	c.dst.Write(p)
}

// end ends the last line. The dot is for the caller.
func (c *content) end() {
	if c.mid {
		c.dst.WriteString("\r\n")
	}
}
