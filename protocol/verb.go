package protocol

import (
	"context"
	"slices"
	"strings"
)

// Verb is a command that the embedding program adds, or puts in place of one of this
// package's, in Server.Verbs under its name in upper case, of 24 letters at most.
type Verb struct {
	// Syntax is what HELP tells, such as "NOW [zone]"; without it HELP does not
	// list the verb.
	Syntax string
	// SyntaxExtended is what it tells behind that in a session that began with EHLO or
	// LHLO, such as " [SP <parameters>]".
	SyntaxExtended string
	// Keyword is the line of the EHLO reply that announces the verb; "" for none.
	Keyword string
	// NeedHello refuses the verb with 503 before HELO, EHLO or LHLO.
	NeedHello bool
	// Available says whether this session may use the verb; nil for every one.
	// Where it may not, the verb is unknown.
	Available func(s *Session) bool
	// Serve carries the command out; arg has no blanks at its ends. A zero Reply
	// is 250 OK. A nil Serve makes a verb of this package unknown.
	Serve func(ctx context.Context, s *Session, arg string) Reply
}

func (v *Verb) available(s *Session) bool {
	return v.Serve != nil && (v.Available == nil || v.Available(s))
}

// custom carries out a verb of Server.Verbs, if line is one.
func (s *Session) custom(ctx context.Context, line, arg []byte) (Reply, bool) {
	var buf [24]byte
	name := verbName(line, &buf)
	v, ok := s.srv.Verbs[string(name)]
	if len(name) == len(buf) && len(line) > len(buf) && line[len(buf)] != ' ' && line[len(buf)] != '\t' {
		ok = false // a longer word
	}
	switch {
	case !ok:
		return Reply{}, false
	case !v.available(s):
		return s.unknown(line), true
	case v.NeedHello && s.Hello == "":
		return s.helloFirst(), true
	}
	return v.Serve(ctx, s, string(arg)).or(replyOK), true
}

// helpTexts are the syntax lines of HELP. A nil condition is always true.
var helpTexts = []struct {
	verb, syntax string
	when         func(*Session) bool
}{
	{"AUTH", "AUTH mechanism [initial-response]", func(s *Session) bool { return len(s.mechanisms()) > 0 }},
	{"BDAT", "BDAT <size> [LAST]", func(s *Session) bool { return s.srv.ext&ExtChunking != 0 }},
	{"DATA", "DATA", nil},
	{"EHLO", "EHLO hostname", func(s *Session) bool { return s.Mode == SMTP }},
	{"EXPN", "EXPN <list>", nil},
	{"HELO", "HELO hostname", func(s *Session) bool { return s.Mode == SMTP }},
	{"HELP", "HELP [command]", nil},
	{"LHLO", "LHLO hostname", func(s *Session) bool { return s.Mode == LMTP }},
	{"MAIL", "MAIL FROM: <address>", nil},
	{"NOOP", "NOOP", nil},
	{"QUIT", "QUIT", nil},
	{"RCPT", "RCPT TO: <address>", nil},
	{"RSET", "RSET", nil},
	{"STARTTLS", "STARTTLS", func(s *Session) bool { return s.srv.TLSConfig != nil && s.TLS == nil }},
	{"VRFY", "VRFY <address>", nil},
	{"XCLIENT", "XCLIENT attribute=value...", func(s *Session) bool { return s.trust&TrustXClient != 0 }},
	{"XFORWARD", "XFORWARD attribute=value...", func(s *Session) bool { return s.trust&TrustXForward != 0 }},
}

// helps gives verb and syntax of each command that the session may use, in order.
func (s *Session) helps() (all [][2]string) {
	for _, h := range helpTexts {
		if _, replaced := s.srv.Verbs[h.verb]; !replaced && (h.when == nil || h.when(s)) {
			all = append(all, [2]string{h.verb, h.syntax + s.paramsHelp(h.verb)})
		}
	}
	for name, v := range s.srv.Verbs {
		if v.Syntax != "" && v.available(s) {
			syntax := v.Syntax
			if s.Extended {
				syntax += v.SyntaxExtended
			}
			all = append(all, [2]string{name, syntax})
		}
	}
	slices.SortFunc(all, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return all
}

// help: RFC 5321 section 4.1.1.8.
func (s *Session) help(arg []byte) Reply {
	verb := strings.ToUpper(string(arg))
	list := "Supported commands:"
	for _, h := range s.helps() {
		if h[0] == verb {
			return Reply{Code: 214, Enhanced: Enhanced{2, 0, 0}, Text: "Syntax: " + h[1]}
		}
		list += " " + h[0]
	}
	if verb != "" {
		return s.fault(Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: list})
	}
	return Reply{Code: 214, Enhanced: Enhanced{2, 0, 0}, Text: list}
}

func (s *Session) paramsHelp(verb string) string {
	switch {
	case !s.Extended:
	case verb == "MAIL":
		return " [SP <mail-parameters>]"
	case verb == "RCPT":
		return " [SP <rcpt-parameters>]"
	}
	return ""
}
