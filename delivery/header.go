package delivery

import (
	"bytes"
	"strings"
)

// messageHeader is what a delivery wants to know of a message's header.
type messageHeader struct {
	messageID   string   // without angle brackets
	deliveredTo []string // every Delivered-To field, without angle brackets
	received    int      // number of Received fields
	queueID     string   // id of the topmost Received field
}

const (
	// maxHeader is how much of a message is looked at as its header, in octets.
	// What lies beyond is stored all the same.
	maxHeader      = 256 << 10
	maxDeliveredTo = 1000
	maxMessageID   = 512
	// maxReceivedField is how long a Received field may be to be looked into.
	maxReceivedField = 8 << 10
)

// headerScan looks at the header of a message that arrives in pieces and passes
// on the octets that stay in the message. Each octet is looked at once.
type headerScan struct {
	header   messageHeader
	pending  []byte // the field at hand and what came behind it
	field    int    // pending[:field] are complete lines of that field
	searched int    // pending[field:searched] has no line end
	done     bool   // the header has ended
}

// feed takes the next piece of the message and calls keep with what stays in it.
func (h *headerScan) feed(p []byte, keep func([]byte) error) error {
	h.pending = append(h.pending, p...)
	for !h.done {
		i := bytes.IndexByte(h.pending[h.searched:], '\n')
		if i < 0 {
			h.searched = len(h.pending)
			break
		}
		end := h.searched + i + 1
		if !h.continues(h.pending[h.field:end]) {
			if err := h.complete(keep); err != nil {
				return err
			}
			end -= h.field
			h.pending = h.pending[h.field:]
			h.done = !beginsField(h.pending[:end])
		}
		h.field, h.searched = end, end
	}
	if len(h.pending) > maxHeader {
		h.done = true // an endless line or field is passed on as it is
	}
	if h.done {
		return h.rest(keep)
	}
	return nil
}

// continues: RFC 5322 section 2.2.3.
func (h *headerScan) continues(line []byte) bool {
	return h.field > 0 && (line[0] == ' ' || line[0] == '\t')
}

// complete notes the field at hand.
func (h *headerScan) complete(keep func([]byte) error) error {
	if h.field == 0 || !h.header.note(h.pending[:h.field]) {
		return nil
	}
	return keep(h.pending[:h.field])
}

// finish is called at the end of the message: its last line may lack a line end,
// and it may have no body.
func (h *headerScan) finish(keep func([]byte) error) error {
	if h.done {
		return nil
	}
	h.done = true
	tail := h.pending[h.field:]
	if len(tail) == 0 || h.continues(tail) {
		h.field = len(h.pending)
	}
	if err := h.complete(keep); err != nil {
		return err
	}
	h.pending = h.pending[h.field:]
	if len(h.pending) > 0 && beginsField(h.pending) && !h.header.note(h.pending) {
		h.pending = nil
	}
	return h.rest(keep)
}

func (h *headerScan) rest(keep func([]byte) error) error {
	p := h.pending
	h.pending = nil
	return keep(p)
}

// beginsField reports whether a line begins a header field; if not, the header
// has ended.
func beginsField(line []byte) bool {
	colon := bytes.IndexByte(line, ':')
	return colon > 0 && isFieldName(line[:colon])
}

// isFieldName: RFC 5322 section 3.6.8, and the blanks before the colon that old
// mail has.
func isFieldName(b []byte) bool {
	b = bytes.TrimRight(b, " \t")
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return len(b) > 0
}

// note takes what is of interest from one complete field and reports whether the
// field stays in the message: a Return-Path does not, since it is the final
// delivery that writes it (RFC 5321 section 4.4).
func (h *messageHeader) note(field []byte) (keep bool) {
	name, value, _ := bytes.Cut(field, []byte(":"))
	switch string(bytes.ToLower(bytes.TrimRight(name, " \t"))) {
	case "return-path":
		return false
	case "received":
		if h.received++; h.received == 1 && len(value) <= maxReceivedField {
			h.queueID = receivedID(string(value))
		}
	case "delivered-to":
		if len(h.deliveredTo) < maxDeliveredTo {
			h.deliveredTo = append(h.deliveredTo, unbracket(value))
		}
	case "message-id":
		if h.messageID == "" && len(value) <= maxMessageID {
			h.messageID = unbracket(value)
		}
	}
	return true
}

func unbracket(value []byte) string {
	s := strings.TrimSpace(string(value))
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") && len(s) >= 2 {
		s = s[1 : len(s)-1]
	}
	return s
}
