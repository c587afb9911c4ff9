package delivery

import "strings"

// maxQueueID bounds what is taken for a queue id, in octets; those of Postfix
// have up to 20, those of Exim 23.
const maxQueueID = 100

// receivedID is the ID clause of a Received field (RFC 5321 section 4.4), which
// is the name that the host which wrote the field has for the message in its own
// log: "id 4XyZ1b2C3dz" of Postfix, "id 1sAbCd-0000Xy-2z" of Exim. "" if there is
// none that can stand in a log as it is.
func receivedID(value string) string {
	clause, _, _ := strings.Cut(withoutComments(value), ";")
	words := strings.Fields(clause)
	for i := 1; i+1 < len(words); i++ {
		if !strings.EqualFold(words[i], "id") || takesWord(words[i-1]) {
			continue
		}
		id := unbracket([]byte(words[i+1]))
		if len(id) > maxQueueID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '"' }) {
			return ""
		}
		return id
	}
	return ""
}

// takesWord: a client that calls itself "id" must not name the message.
func takesWord(word string) bool {
	switch strings.ToLower(word) {
	case "from", "by", "via", "with", "for":
		return true
	}
	return false
}

// withoutComments makes a blank of each comment (RFC 5322 section 3.2.2) and of
// each quoted string, in which neither words nor a semicolon mean anything.
func withoutComments(s string) string {
	if !strings.ContainsAny(s, `("`) {
		return s
	}
	var b strings.Builder
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && (quoted || depth > 0):
			i++
		case quoted:
			quoted = c != '"'
		case c == '(':
			depth++
			b.WriteByte(' ')
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == '"':
			quoted = true
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
