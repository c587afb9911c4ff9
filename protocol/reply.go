package protocol

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reply is what the server answers to a command: a value, free to copy and to
// compare. The zero Reply means "no objection": the verb's own default reply.
// Reply implements error, so that a handler can return it as one.
type Reply struct {
	// Code is the three-digit reply code of RFC 5321 section 4.2; 0 stands for
	// the default of the verb.
	Code int
	// Enhanced is the status code of RFC 3463; the zero value stands for the
	// default of Code.
	Enhanced Enhanced
	// Text is what a person reads. "\n" begins a new line of a multi-line reply.
	Text string
	// Then says what becomes of the connection.
	Then Then
}

// Enhanced is an enhanced mail system status code (RFC 3463): class, subject, detail.
type Enhanced [3]uint16

// Then says what happens to the connection once a reply is due.
type Then uint8

const (
	Continue   Then = iota // go on reading commands
	CloseAfter             // send the reply, then close
	CloseNow               // close without sending it
)

// Replyf formats a Reply.
func Replyf(code int, e Enhanced, format string, a ...any) Reply {
	return Reply{Code: code, Enhanced: e, Text: fmt.Sprintf(format, a...)}
}

// OK reports whether the reply accepts: the zero Reply and any 2yz.
func (r Reply) OK() bool { return r.Code == 0 || r.Code/100 == 2 }

// Temporary reports whether the reply asks the client to try again later (4yz).
func (r Reply) Temporary() bool { return r.Code/100 == 4 }

// final reports whether the reply can end a transaction.
func (r Reply) final() bool { c := r.Code / 100; return c == 2 || c == 4 || c == 5 }

// Error gives the reply as one line: code, enhanced code, text.
func (r Reply) Error() string {
	return strings.TrimSuffix(strings.ReplaceAll(string(r.AppendTo(nil)), "\r\n", "\n"), "\n")
}

// AppendTo appends the reply as it goes over the wire, each line ended by CR LF
// and carrying the enhanced code (RFC 2034 section 4). Control characters are
// replaced by blanks and octets outside ASCII by "?", so that no hook can break
// the dialog with its text; lines are folded at 512 octets (RFC 5321 section
// 4.5.3.1.5).
func (r Reply) AppendTo(dst []byte) []byte { return r.appendTo(dst, false, true) }

// maxReplyLine counts the CR LF (RFC 5321 section 4.5.3.1.5).
const maxReplyLine = 512

// appendTo is AppendTo with a choice: utf8 leaves valid UTF-8 in the text (a
// client that sent SMTPUTF8 takes it, RFC 6531 section 3.6), enhanced is false
// for the greeting and the answer to EHLO (RFC 2034 section 3).
func (r Reply) appendTo(dst []byte, utf8 bool, enhanced bool) []byte {
	code := r.Code
	switch {
	case code == 0:
		code = 250
	case code < 200 || code > 599:
		code = 451 // a mistake of the program must neither accept nor bounce
	}
	var e Enhanced
	if enhanced && code/100 != 3 {
		e = r.Enhanced.withClass(code)
	}
	text := r.Text
	for {
		line, rest, more := strings.Cut(text, "\n")
		start := len(dst)
		dst = strconv.AppendInt(dst, int64(code), 10)
		sep := len(dst)
		dst = append(dst, ' ')
		if e[0] != 0 {
			dst = e.append(dst)
			dst = append(dst, ' ')
		}
		room := maxReplyLine - 2 - (len(dst) - start)
		if len(line) > room {
			cut := foldAt(line, room)
			line, rest, more = line[:cut], text[cut:], true
		}
		dst = appendText(dst, line, utf8)
		if more {
			dst[sep] = '-'
		}
		dst = append(dst, '\r', '\n')
		if !more {
			return dst
		}
		text = rest
	}
}

// foldAt finds where a line of more than room octets is to be cut: behind a
// blank in its second half, else between two characters.
func foldAt(line string, room int) int {
	if i := strings.LastIndexByte(line[:room], ' '); i > room/2 {
		return i + 1
	}
	for i := room; i > room-utf8.UTFMax; i-- {
		if utf8.RuneStart(line[i]) {
			return i
		}
	}
	return room
}

func appendText(dst []byte, s string, allowUTF8 bool) []byte {
	allowUTF8 = allowUTF8 && utf8.ValidString(s)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			dst = append(dst, ' ')
		case c >= 0x80 && !allowUTF8:
			dst = append(dst, '?')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func (e Enhanced) append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(e[0]), 10)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, uint64(e[1]), 10)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, uint64(e[2]), 10)
}

// String gives the code as "5.1.1", or "" for the zero value.
func (e Enhanced) String() string {
	if e == (Enhanced{}) {
		return ""
	}
	return string(e.append(nil))
}

// withClass fills in the default for the zero value, and for what RFC 3463 section
// 2 does not allow, and makes the class agree with the reply code, as RFC 2034
// section 4 demands.
func (e Enhanced) withClass(code int) Enhanced {
	class := uint16(code / 100)
	if e == (Enhanced{}) || e[1] > 999 || e[2] > 999 {
		switch code {
		case 421:
			return Enhanced{4, 3, 2}
		case 451:
			return Enhanced{4, 3, 0}
		case 452:
			return Enhanced{4, 3, 1}
		case 500, 502, 503:
			return Enhanced{5, 5, 1}
		case 501, 504, 555:
			return Enhanced{5, 5, 4}
		case 530, 550, 554:
			return Enhanced{5, 7, 1}
		case 552:
			return Enhanced{5, 3, 4}
		case 553:
			return Enhanced{5, 1, 3}
		}
		return Enhanced{class, 0, 0}
	}
	e[0] = class
	return e
}

// or gives the reply itself, or def where it stands for the default. What it
// says about the connection holds for the default too.
func (r Reply) or(def Reply) Reply {
	if r.Code == 0 {
		if r.Then != Continue {
			def.Then = r.Then
		}
		return def
	}
	return r
}

// Fixed replies. The texts are those that clients and their tests have met for
// twenty years; the enhanced codes are those of RFC 3463.
var (
	replyOK               = Reply{Code: 250, Enhanced: Enhanced{2, 0, 0}, Text: "OK"}
	replyMailOK           = Reply{Code: 250, Enhanced: Enhanced{2, 1, 0}, Text: "OK"}
	replyRcptOK           = Reply{Code: 250, Enhanced: Enhanced{2, 1, 5}, Text: "OK"}
	replyBye              = Reply{Code: 221, Enhanced: Enhanced{2, 0, 0}, Text: "Bye", Then: CloseAfter}
	replyStartMail        = Reply{Code: 354, Text: "End data with <CR><LF>.<CR><LF>"}
	replyNoVrfy           = Reply{Code: 252, Enhanced: Enhanced{2, 5, 0}, Text: "Cannot VRFY user, but will accept message and attempt delivery"}
	replyBadVrfy          = Reply{Code: 502, Enhanced: Enhanced{5, 1, 3}, Text: "Could not VRFY this address"}
	replyNoExpn           = Reply{Code: 502, Enhanced: Enhanced{5, 5, 1}, Text: "EXPN not implemented"}
	replyBadSyntax        = Reply{Code: 500, Enhanced: Enhanced{5, 5, 2}, Text: "Error: bad syntax"}
	replyBareLF           = Reply{Code: 500, Enhanced: Enhanced{5, 5, 2}, Text: "Error: command lines end with CR LF"}
	replyLineLong         = Reply{Code: 500, Enhanced: Enhanced{5, 5, 2}, Text: "Command line too long"}
	replyBadSender        = Reply{Code: 501, Enhanced: Enhanced{5, 1, 7}, Text: "Error: malformed address"}
	replyBadRcpt          = Reply{Code: 501, Enhanced: Enhanced{5, 1, 3}, Text: "Error: malformed address"}
	replyLongRcpt         = Reply{Code: 501, Enhanced: Enhanced{5, 1, 3}, Text: "Error: address too long"}
	replyMailSyntax       = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Syntax: MAIL FROM: <address>"}
	replyMailSyntaxParams = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Syntax: MAIL FROM: <address> [SP <mail-parameters>]"}
	replyRcptSyntax       = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Syntax: RCPT TO: <address>"}
	replyRcptSyntaxParams = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Syntax: RCPT TO: <address> [SP <rcpt-parameters>]"}
	replyHelloFirst       = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: send HELO first"}
	replyLhloFirst        = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: send LHLO first"}
	replyNestedMail       = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: nested MAIL command"}
	replyNeedMail         = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: need MAIL command"}
	replyNeedRcpt         = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: need RCPT command"}
	replyNeedBdat         = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: BINARYMIME needs BDAT"}
	replyInChunks         = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: message in progress, send BDAT or RSET"}
	replyChunk            = Reply{Code: 250, Enhanced: Enhanced{2, 0, 0}, Text: "OK"}
	replyManyRcpts        = Reply{Code: 452, Enhanced: Enhanced{4, 5, 3}, Text: "Error: too many recipients"}
	replyTooBig           = Reply{Code: 552, Enhanced: Enhanced{5, 3, 4}, Text: "Error: message size exceeds fixed maximum message size"}
	replyTooMuch          = Reply{Code: 552, Enhanced: Enhanced{5, 3, 4}, Text: "Error: Too much mail data"}
	replyLongLine         = Reply{Code: 500, Enhanced: Enhanced{5, 5, 2}, Text: "Line too long (see RFC5321 4.5.3.1.6)"}
	replyBareInData       = Reply{Code: 550, Enhanced: Enhanced{5, 6, 0}, Text: "Error: bare CR or LF in message"}
	replyNeedUTF8         = Reply{Code: 553, Enhanced: Enhanced{5, 6, 7}, Text: "Error: non-ASCII address needs SMTPUTF8"}
	replyInternal         = Reply{Code: 451, Enhanced: Enhanced{4, 3, 0}, Text: "Error: temporary internal failure"}
	replyShutdown         = Reply{Code: 421, Enhanced: Enhanced{4, 3, 2}, Text: "Service shutting down, closing channel", Then: CloseAfter}
	replyCrowded          = Reply{Code: 421, Enhanced: Enhanced{4, 3, 2}, Text: "Too many sessions, try again later", Then: CloseAfter}
	replyIdle             = Reply{Code: 421, Enhanced: Enhanced{4, 4, 2}, Text: "Timeout, closing channel", Then: CloseAfter}
	replyErrors           = Reply{Code: 421, Enhanced: Enhanced{4, 7, 0}, Text: "Too many errors, goodbye", Then: CloseAfter}
	replyUnknowns         = Reply{Code: 421, Enhanced: Enhanced{4, 7, 0}, Text: "Too many unrecognized commands, goodbye", Then: CloseAfter}
)
