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
	relayed     int      // number of those with the mark of the scan
	queueID     string   // id of the topmost Received field
	fields      []field  // those that the scan was asked for
	bare        bool     // the message has no header, and does not begin with an empty line
}

// field is a header field with its value in one line.
type field struct{ name, value string }

// Bounds in octets on what is kept of a header, whatever its size.
const (
	maxFieldName     = 80      // no name that we look for is longer
	maxDeliveredTo   = 1 << 10 // no address is longer
	maxMessageID     = 512     // for the log
	maxReceivedField = 8 << 10 // one that is looked into for its id
	loopFields       = 256     // Delivered-To fields that are remembered
	maxWanted        = 1 << 10 // of a field that was asked for; the rest is cut off
	wantedFields     = 64      // of these that are remembered
)

// headerScan looks at the header of a message that arrives in pieces and passes
// on the octets that stay in the message. It holds back no more than the start of
// a line that may become a Return-Path.
type headerScan struct {
	header messageHeader
	names  []string // in lower case: fields to keep in header.fields
	mark   string   // Received fields that hold this are counted; "": none is
	state  headerState
	done   bool // the header has ended: what follows is body

	held  []byte // octets of a line that may be a field name, not yet passed on
	blank bool   // held ends with blanks, so that only a colon may follow
	open  bool   // a field has begun, and a line that begins with a blank continues it
	drop  bool   // it does not stay in the message
	kept  bool   // a field has been passed on

	want  wantedField // what the field at hand is kept for
	value []byte      // of that field, up to limit+1 octets
	limit int
	asked string // its name, if it is one of names
}

type headerState uint8

const (
	headerLine  headerState = iota // at the start of a line
	headerName                     // in held
	headerLong                     // in a name too long to be of interest
	headerValue                    // behind the colon, or in a continuation line
)

type wantedField uint8

const (
	wantNothing wantedField = iota
	wantReceived
	wantDeliveredTo
	wantMessageID
)

// feed takes the next piece of the message and calls keep with what stays in it.
// The pieces that keep gets are valid during the call only.
func (h *headerScan) feed(p []byte, keep func([]byte) error) error {
	for len(p) > 0 && !h.done {
		var n int
		var err error
		switch h.state {
		case headerLine:
			h.beginLine(p[0])
		case headerName:
			n, err = h.name(p, keep)
		case headerLong:
			n, err = h.long(p, keep)
		case headerValue:
			n, err = h.inValue(p, keep)
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	if len(p) == 0 {
		return nil
	}
	return keep(p)
}

// finish is called at the end of the message, which may have no body and no last
// line end.
func (h *headerScan) finish(keep func([]byte) error) error {
	if h.done {
		return nil
	}
	h.done = true
	h.note()
	h.header.bare = !h.kept && (len(h.held) > 0 || h.state == headerLong)
	return keep(h.held)
}

// beginLine tells a continuation line (RFC 5322 section 2.2.3) from a new field.
func (h *headerScan) beginLine(c byte) {
	if h.open && (c == ' ' || c == '\t') {
		h.state = headerValue
		return
	}
	h.note()
	h.state, h.open, h.blank, h.drop = headerName, false, false, false
}

// name takes octets of a field name, up to the colon or to what makes this line
// none of a header.
func (h *headerScan) name(p []byte, keep func([]byte) error) (int, error) {
	for i, c := range p {
		switch {
		case c == ':' && len(h.held) > 0:
			h.held = append(h.held, c)
			h.begin(h.held[:len(h.held)-1])
			return i + 1, h.release(keep)
		case (c == ' ' || c == '\t') && len(h.held) > 0:
			h.blank = true // RFC 5322 section 4.5: old mail has blanks before the colon
		case h.blank || !isNameOctet(c):
			h.end(c)
			return i, h.release(keep)
		}
		if h.held = append(h.held, c); len(h.held) > maxFieldName {
			h.state = headerLong
			return i + 1, h.release(keep)
		}
	}
	return len(p), nil
}

// long looks on for the colon of an overlong name.
func (h *headerScan) long(p []byte, keep func([]byte) error) (int, error) {
	for i, c := range p {
		switch {
		case c == ':':
			h.begin(nil)
			return i, keep(p[:i]) // the colon counts as part of the value
		case c == ' ' || c == '\t':
			h.blank = true
		case h.blank || !isNameOctet(c):
			h.end(c)
			return i, keep(p[:i])
		}
	}
	return len(p), keep(p)
}

// isNameOctet: RFC 5322 section 3.6.8; the colon is looked at before.
func isNameOctet(c byte) bool { return c > ' ' && c < 0x7f && c != ':' }

// release passes on what was held back, unless it begins a field that is dropped.
func (h *headerScan) release(keep func([]byte) error) error {
	p := h.held
	h.held = h.held[:0]
	if h.drop || len(p) == 0 {
		return nil
	}
	return keep(p)
}

// end notes that the header has ended with a line that begins no field, which has
// been looked at up to c. An empty one ends it properly.
func (h *headerScan) end(c byte) {
	h.done = true
	empty := len(h.held) == 0 && h.state == headerName && (c == '\n' || c == '\r')
	h.header.bare = !h.kept && !empty
}

// begin starts a field. A Return-Path does not stay in the message, since it is
// the final delivery that writes it (RFC 5321 section 4.4).
func (h *headerScan) begin(name []byte) {
	h.state, h.open, h.drop = headerValue, true, false
	h.want, h.value = wantNothing, h.value[:0]
	var lower [maxFieldName]byte
	name = bytes.TrimRight(name, " \t")
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	h.asked = ""
	for _, n := range h.names {
		if n == string(lower[:len(name)]) && len(h.header.fields) < wantedFields {
			h.asked, h.limit = n, maxWanted
		}
	}
	switch string(lower[:len(name)]) {
	case "return-path":
		h.drop = true
		return
	case "received":
		if h.header.received++; h.header.received == 1 || h.mark != "" {
			h.want, h.limit = wantReceived, maxReceivedField
		}
	case "delivered-to":
		if len(h.header.deliveredTo) < loopFields {
			h.want, h.limit = wantDeliveredTo, maxDeliveredTo
		}
	case "message-id":
		if h.header.messageID == "" {
			h.want, h.limit = wantMessageID, maxMessageID
		}
	}
	h.kept = true
}

// inValue takes the rest of a line of a field.
func (h *headerScan) inValue(p []byte, keep func([]byte) error) (int, error) {
	n := len(p)
	if i := bytes.IndexByte(p, '\n'); i >= 0 {
		n = i + 1
		h.state = headerLine
	}
	if h.want != wantNothing || h.asked != "" {
		h.value = append(h.value, p[:min(n, h.limit+1-len(h.value))]...)
	}
	if h.drop {
		return n, nil
	}
	return n, keep(p[:n])
}

// note takes what is of interest from the field that has ended. A value that was
// too long is not.
func (h *headerScan) note() {
	if h.asked != "" {
		words := strings.Fields(string(h.value[:min(len(h.value), maxWanted)]))
		h.header.fields = append(h.header.fields, field{h.asked, strings.Join(words, " ")})
		h.asked = ""
	}
	want := h.want
	h.want = wantNothing
	if want == wantNothing || len(h.value) > h.limit {
		return
	}
	switch want {
	case wantReceived:
		if h.header.received == 1 {
			h.header.queueID = receivedID(string(h.value))
		}
		if h.mark != "" && bytes.Contains(h.value, []byte(h.mark)) {
			h.header.relayed++
		}
	case wantDeliveredTo:
		h.header.deliveredTo = append(h.header.deliveredTo, unbracket(h.value))
	case wantMessageID:
		h.header.messageID = unbracket(h.value)
	}
}

func unbracket(value []byte) string {
	s := strings.TrimSpace(string(value))
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") && len(s) >= 2 {
		s = s[1 : len(s)-1]
	}
	return s
}
