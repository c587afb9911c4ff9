package protocol

import "bytes"

// scanner finds the end of the data of RFC 5321 section 4.1.1.4 and undoes the
// dot-stuffing of section 4.5.2, on octets that arrive in pieces of any size.
//
// The end is CR LF . CR LF and nothing else; the CR LF of the DATA command counts
// as the first. A dot behind any other CR LF is removed; every other octet,
// lone CR and LF included, is passed on as it came.
type scanner struct {
	state scanState
	cr    bool // in scanLine: the last octet was a CR
}

type scanState uint8

const (
	scanStart scanState = iota // behind CR LF
	scanLine                   // within a line
	scanEnd                    // behind the final CR LF
)

var crlfDot = []byte("\r\n.")

// next looks at src, which begins where the last call left off. It gives a span
// of content at the front of src[skip:], and how many octets of src are done
// with; skip is 1 where a stuffed dot was removed. done is set at the end of the
// data, which has been consumed. used == 0 without done means that more octets
// are needed than src has: at most two are ever held back.
func (sc *scanner) next(src []byte) (span []byte, used int, done bool) {
	skip := 0
	if sc.state == scanStart {
		switch {
		case len(src) == 0:
			return nil, 0, false
		case src[0] != '.':
		case len(src) == 1:
			return nil, 0, false
		case src[1] != '\r':
			skip = 1
		case len(src) == 2:
			return nil, 0, false
		case src[2] == '\n':
			sc.state = scanEnd
			return nil, 3, true
		default:
			skip = 1
		}
		sc.state, sc.cr = scanLine, false
	}
	body := src[skip:]
	if len(body) == 0 {
		return nil, skip, false
	}
	if sc.cr && body[0] == '\n' {
		// The CR LF came in two pieces.
		sc.state, sc.cr = scanStart, false
		return body[:1], skip + 1, false
	}
	if i := bytes.Index(body, crlfDot); i >= 0 {
		sc.state = scanStart
		return body[:i+2], skip + i + 2, false
	}
	// No dot at the start of a line here; the last octets say whether the next
	// piece may begin with one.
	n := len(body)
	sc.cr = body[n-1] == '\r'
	if n >= 2 && body[n-2] == '\r' && body[n-1] == '\n' {
		sc.state = scanStart
	}
	return body, skip + n, false
}
