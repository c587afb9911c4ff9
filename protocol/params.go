package protocol

import (
	"math"
	"strconv"
	"strings"
)

// MailParams are the parameters of a MAIL command that this package knows.
type MailParams struct {
	// Size is the size in octets that the client declared (RFC 1870); 0 if none.
	// A number too large for an int64 is held as the largest one.
	Size int64
	// Body is the declared body type (RFC 6152); "" if none.
	Body BodyType
	// UTF8 says that the client sent SMTPUTF8 (RFC 6531).
	UTF8 bool
	// Ret and EnvID are those of RFC 3461, with ExtDSN only; "" if none.
	Ret   Ret
	EnvID string
	// RequireTLS says that the client sent REQUIRETLS (RFC 8689), with ExtRequireTLS and
	// within TLS only: whoever passes the message on may do so only by TLS, to servers
	// that have the same extension.
	RequireTLS bool
	// Auth is the mailbox that submitted the message first, as the client says (RFC
	// 4954 section 5), where AUTH is offered; "<>" if that is not known, "" if none.
	Auth string
	// Other are the parameters that Server.Params took.
	Other []Param
}

// BodyType is the value of the BODY parameter, in upper case.
type BodyType string

const (
	Body7Bit       BodyType = "7BIT"
	Body8BitMIME   BodyType = "8BITMIME"
	BodyBinaryMIME BodyType = "BINARYMIME" // RFC 3030: only with BDAT, and no lines in it
)

// Param is one parameter of a MAIL or RCPT command: "KEY" or "KEY=value". The
// key is in upper case.
type Param struct {
	Key, Value string
	HasValue   bool
}

// ParamFunc decides on a parameter that this package does not know; rcpt is nil
// for one of MAIL. A parameter that is not known is answered 555, one that is
// known and accepted is kept in the Other field; a refusing reply refuses the
// command.
type ParamFunc func(tx *Transaction, rcpt *Recipient, p Param) (known bool, r Reply)

var (
	replyMailParam   = Reply{Code: 555, Enhanced: Enhanced{5, 5, 4}, Text: "MAIL FROM parameters not recognized or not implemented"}
	replyRcptParam   = Reply{Code: 555, Enhanced: Enhanced{5, 5, 4}, Text: "RCPT TO parameters not recognized or not implemented"}
	replyBodyParam   = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: BODY can only be one of 7BIT, 8BITMIME, BINARYMIME"}
	replyUTF8Param   = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: SMTPUTF8 takes no arguments"}
	replyUTF8Off     = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: SMTPUTF8 disabled"}
	replyParamSyntax = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: malformed parameter"}
	replyParamTwice  = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: parameter given twice"}
	replyRequireTLS  = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: REQUIRETLS takes no arguments"}
	replyOrcpt       = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: ORCPT is type;xtext"}
)

// cutParam takes the next parameter off s. ok is false where it is malformed
// (RFC 5321 section 4.1.2, esmtp-param); a zero Param means there is none left.
func cutParam(s string) (p Param, rest string, ok bool) {
	s = strings.TrimLeft(s, " \t")
	if s == "" {
		return Param{}, "", true
	}
	word := s
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		word, rest = s[:i], s[i:]
	}
	key, value, hasValue := strings.Cut(word, "=")
	if hasValue && value == "" {
		return Param{}, "", false
	}
	if !isAtom(key) {
		return Param{}, "", false
	}
	return Param{Key: strings.ToUpper(key), Value: value, HasValue: hasValue}, rest, true
}

// isAtom reports whether s is made of letters, digits and hyphens, the first of them
// no hyphen: a keyword of RFC 5321 section 4.1.2, and narrow enough for the address
// types in use.
func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// parseMailParams reads the parameters of MAIL into tx.
func (s *Session) parseMailParams(tx *Transaction, params string) Reply {
	var seenSize, seenBody bool
	for {
		p, rest, ok := cutParam(params)
		if !ok {
			return replyParamSyntax
		}
		if p.Key == "" {
			return Reply{}
		}
		params = rest
		switch ext := s.srv.ext; {
		case p.Key == "SIZE" && ext&ExtSize != 0:
			if seenSize {
				return replyParamTwice
			}
			seenSize = true
			n, ok := parseSize(p.Value)
			if !ok {
				return replyParamSyntax
			}
			tx.Mail.Size = n
		case p.Key == "BODY" && ext&Ext8BitMIME != 0:
			if seenBody {
				return replyParamTwice
			}
			seenBody = true
			tx.Mail.Body = BodyType(strings.ToUpper(p.Value))
			switch tx.Mail.Body {
			case Body7Bit, Body8BitMIME:
			case BodyBinaryMIME:
				if ext&ExtBinaryMIME == 0 {
					return replyBodyParam
				}
			default:
				return replyBodyParam
			}
		case p.Key == "SMTPUTF8":
			if p.HasValue {
				return replyUTF8Param
			}
			if !s.utf8Offered() {
				return replyUTF8Off
			}
			tx.Mail.UTF8 = true
		case (p.Key == "RET" || p.Key == "ENVID") && ext&ExtDSN != 0:
			if r := tx.Mail.mailDSN(p); !r.OK() {
				return r
			}
		case p.Key == "REQUIRETLS" && s.requireTLSOffered():
			switch {
			case p.HasValue:
				return replyRequireTLS
			case tx.Mail.RequireTLS:
				return replyParamTwice
			}
			tx.Mail.RequireTLS = true
		case p.Key == "AUTH" && s.srv.Auth.offered():
			if tx.Mail.Auth != "" {
				return replyParamTwice
			}
			if tx.Mail.Auth, ok = decodeXtext(p.Value); !ok || tx.Mail.Auth == "" {
				return replyParamSyntax
			}
		default:
			known, r := s.otherParam(tx, nil, p)
			if !known {
				return replyMailParam
			}
			if !r.OK() {
				return r
			}
			tx.Mail.Other = append(tx.Mail.Other, p)
		}
	}
}

// parseRcptParams reads the parameters of RCPT into rcpt.
func (s *Session) parseRcptParams(tx *Transaction, rcpt *Recipient, params string) Reply {
	for {
		p, rest, ok := cutParam(params)
		if !ok {
			return replyParamSyntax
		}
		if p.Key == "" {
			return Reply{}
		}
		params = rest
		if p.Key == "ORCPT" {
			// Understood though DSN is not announced: it costs nothing, and it
			// is the only way to learn the address the sender wrote.
			if rcpt.ORcpt != "" {
				return replyParamTwice
			}
			if rcpt.ORcpt, ok = parseORcpt(p.Value); !ok {
				return replyOrcpt
			}
			continue
		}
		if p.Key == "NOTIFY" && s.srv.ext&ExtDSN != 0 {
			if rcpt.Notify != 0 {
				return replyParamTwice
			}
			if rcpt.Notify, ok = parseNotify(p.Value); !ok {
				return replyNotify
			}
			continue
		}
		if p.Key == "RRVS" && s.srv.ext&ExtRRVS != 0 {
			if !rcpt.RRVS.Time.IsZero() {
				return replyParamTwice
			}
			if rcpt.RRVS, ok = parseRRVS(p.Value); !ok {
				return replyRRVS
			}
			continue
		}
		known, r := s.otherParam(tx, rcpt, p)
		if !known {
			return replyRcptParam
		}
		if !r.OK() {
			return r
		}
		rcpt.Other = append(rcpt.Other, p)
	}
}

func (s *Session) otherParam(tx *Transaction, rcpt *Recipient, p Param) (bool, Reply) {
	if s.srv.Params == nil {
		return false, Reply{}
	}
	return s.srv.Params(tx, rcpt, p)
}

// parseSize reads up to 20 digits (RFC 1870 section 3) and saturates.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return math.MaxInt64, true
	}
	return n, true
}
