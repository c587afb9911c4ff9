package relay

import (
	"bytes"
	"io"
)

// content passes a message on with CR LF at the end of every line, and with a field at
// the end of its header.
type content struct {
	dst   io.Writer
	field string // with its CR LF; "" for none, or once it is in
	cr    bool   // a CR is held back: its LF may come with the next piece
	text  bool   // within a line
}

var crlf = []byte("\r\n")

// Write takes the next piece of the message.
func (c *content) Write(p []byte) (int, error) {
	n := len(p)
	looked := false // for whole lines
	for len(p) > 0 {
		if c.cr {
			c.cr = false
			if p[0] == '\n' {
				p = p[1:]
			}
			if err := c.newline(); err != nil {
				return 0, err
			}
			continue
		}
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			return n, c.span(p)
		}
		// As many whole lines at once as there are, once the header is over.
		if c.field == "" && !looked {
			looked = true
			if j := wholeLines(p); j > 0 {
				if err := c.span(p[:j]); err != nil {
					return 0, err
				}
				c.text = false
				p = p[j:]
				continue
			}
		}
		if i > 0 {
			if err := c.span(p[:i]); err != nil {
				return 0, err
			}
		}
		if p[i] == '\r' {
			c.cr = true
		} else if err := c.newline(); err != nil {
			return 0, err
		}
		p = p[i+1:]
	}
	return n, nil
}

// wholeLines is the length of the part of p that ends with its last CR LF, if all
// lines in it end so; else 0.
func wholeLines(p []byte) int {
	n := bytes.LastIndex(p, crlf) + len(crlf)
	if n < len(crlf) {
		return 0
	}
	pairs := bytes.Count(p[:n], crlf)
	if bytes.Count(p[:n], crlf[:1]) != pairs || bytes.Count(p[:n], crlf[1:]) != pairs {
		return 0
	}
	return n
}

func (c *content) span(p []byte) error {
	c.text = true
	_, err := c.dst.Write(p)
	return err
}

// newline ends a line; an empty one is the end of the header.
func (c *content) newline() error {
	if !c.text {
		if err := c.add(); err != nil {
			return err
		}
	}
	c.text = false
	_, err := c.dst.Write(crlf)
	return err
}

func (c *content) add() error {
	if c.field == "" {
		return nil
	}
	field := c.field
	c.field = ""
	_, err := io.WriteString(c.dst, field)
	return err
}

// end is called when the message is complete.
func (c *content) end() error {
	if c.cr || c.text && c.field != "" {
		c.cr = false
		if err := c.newline(); err != nil {
			return err
		}
	}
	return c.add() // a message that is all header
}
