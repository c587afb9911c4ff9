package protocol

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Notify says about which events the sender of a message wants to be told (RFC 3461
// section 4.1). The zero value is its default: failures, and perhaps delays.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Ret is how much of a message a failure notice is to contain (RFC 3461 section 4.3).
type Ret string

const (
	RetFull Ret = "FULL"
	RetHdrs Ret = "HDRS"
)

var (
	replyRet    = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: RET can only be one of FULL, HDRS"}
	replyEnvID  = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: ENVID is xtext of at most 100 characters"}
	replyNotify = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: NOTIFY is NEVER or of SUCCESS, FAILURE, DELAY"}
)

// maxEnvID is the length of an envelope identifier (RFC 3461 section 4.4).
const maxEnvID = 100

// mailDSN takes the parameters of MAIL that DSN adds.
func (m *MailParams) mailDSN(p Param) Reply {
	if p.Key == "RET" {
		if m.Ret != "" {
			return replyParamTwice
		}
		m.Ret = Ret(strings.ToUpper(p.Value))
		if m.Ret != RetFull && m.Ret != RetHdrs {
			return replyRet
		}
		return Reply{}
	}
	if m.EnvID != "" {
		return replyParamTwice
	}
	var ok bool
	if m.EnvID, ok = decodeXtext(p.Value); !ok || m.EnvID == "" || len(p.Value) > maxEnvID || !isASCII(m.EnvID) {
		return replyEnvID
	}
	return Reply{}
}

// parseNotify reads the value of NOTIFY.
func parseNotify(s string) (n Notify, ok bool) {
	for word := range strings.SplitSeq(s, ",") {
		var bit Notify
		switch strings.ToUpper(word) {
		case "NEVER":
			bit = NotifyNever
		case "SUCCESS":
			bit = NotifySuccess
		case "FAILURE":
			bit = NotifyFailure
		case "DELAY":
			bit = NotifyDelay
		default:
			return 0, false
		}
		n |= bit
	}
	return n, n == NotifyNever || n&NotifyNever == 0
}

// parseORcpt decodes addr-type ";" xtext (RFC 3461 sections 4 and 4.2) and gives
// the address; one of another type than rfc822 or utf-8 keeps its type.
func parseORcpt(s string) (string, bool) {
	typ, x, ok := strings.Cut(s, ";")
	if !ok || !isAtom(typ) || x == "" {
		return "", false
	}
	addr, ok := decodeXtext(x)
	if !ok || !utf8.ValidString(addr) {
		return "", false
	}
	if strings.EqualFold(typ, "rfc822") || strings.EqualFold(typ, "utf-8") {
		return addr, true
	}
	return typ + ";" + addr, true
}

// decodeXtext undoes xtext (RFC 3461 section 4) and refuses what decodes to a
// control character: it is bound for a header and a log line.
func decodeXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		if c < ' ' || c == 0x7f {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), true
}
