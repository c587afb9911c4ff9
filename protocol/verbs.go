package protocol

import (
	"context"
	"strings"
)

// command carries out one command line, its LF removed.
func (s *Session) command(ctx context.Context, line []byte) Reply {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	} else if s.srv.newlines == NewlinesReject {
		return s.fault(replyBareLF)
	}
	verb, arg, ok := cutVerb(line)
	if !ok {
		return s.fault(replyBadSyntax)
	}
	if r, ok := s.instead(ctx, verb, line, arg); ok {
		return r
	}
	return s.carryOut(ctx, verb, line, arg)
}

// instead answers a command that is not to be carried out, or not by us: one that
// is over a limit, that TLS or AUTH have to come before, that the embedding program
// has a verb for, or that comes between the chunks of a message.
//
// It is apart from carryOut, and both are kept out of command, because an idle
// session pays for the deepest stack that it has had: with their frames on top of
// each other it is twice as large.
//
//go:noinline
func (s *Session) instead(ctx context.Context, verb uint32, line, arg []byte) (Reply, bool) {
	if r := s.called(line); r.Code != 0 {
		return r, true
	}
	if r := s.gate(verb, line); r.Code != 0 {
		return r, true
	}
	if len(s.srv.Verbs) > 0 {
		if r, ok := s.custom(ctx, line, arg); ok {
			return r, true
		}
	}
	if s.chunks != nil {
		return s.betweenChunks(verb, line)
	}
	return Reply{}, false
}

// carryOut finds the verb.
//
//go:noinline
func (s *Session) carryOut(ctx context.Context, verb uint32, line, arg []byte) Reply {
	switch verb {
	case vBDAT:
		if s.srv.ext&ExtChunking != 0 && s.Extended {
			return s.bdat(ctx, arg)
		}
	case vAUTH:
		if s.srv.Auth.offered() && (s.Extended || s.Hello == "") {
			return s.auth(ctx, arg)
		}
	case vNOOP:
		return s.noop(ctx, arg)
	case vRSET:
		return s.rset(ctx, arg)
	case vMAIL:
		return s.mailCounted(ctx, arg)
	case vRCPT:
		return s.rcptCounted(ctx, arg)
	case vDATA:
		return s.data(ctx, arg)
	case vQUIT:
		return s.quit(ctx, arg)
	case vVRFY:
		return s.vrfy(ctx, arg)
	case vEXPN:
		return s.expn(ctx, arg)
	case vHELP:
		return s.help(arg)
	case vLHLO:
		if s.Mode == LMTP {
			return s.hello(ctx, arg, verb)
		}
	case vEHLO, vHELO:
		// RFC 2033 section 4.1: an LMTP server must not know these.
		if s.Mode == SMTP {
			return s.hello(ctx, arg, verb)
		}
	}
	if verb == 0 && isWord(line, "STARTTLS") {
		return s.startTLS(ctx, arg)
	}
	if s.trust != 0 && s.Extended {
		switch {
		case s.trust&TrustXForward != 0 && isWord(line, "XFORWARD"):
			return s.xforward(arg)
		case s.trust&TrustXClient != 0 && isWord(line, "XCLIENT"):
			return s.xclient(ctx, arg)
		}
	}
	return s.unknown(line)
}

func (s *Session) mailCounted(ctx context.Context, arg []byte) Reply {
	r := s.mail(ctx, arg)
	if r.OK() {
		s.srv.counters.transactions.Add(1)
	}
	return r
}

func (s *Session) rcptCounted(ctx context.Context, arg []byte) Reply {
	r := s.rcpt(ctx, arg)
	if r.OK() {
		s.srv.counters.recipients.Add(1)
	} else {
		s.srv.counters.refusedRcpts.Add(1)
	}
	return r
}

// Verbs are four octets in upper case, first octet highest.
const (
	vAUTH = 'A'<<24 | 'U'<<16 | 'T'<<8 | 'H'
	vBDAT = 'B'<<24 | 'D'<<16 | 'A'<<8 | 'T'
	vDATA = 'D'<<24 | 'A'<<16 | 'T'<<8 | 'A'
	vEHLO = 'E'<<24 | 'H'<<16 | 'L'<<8 | 'O'
	vEXPN = 'E'<<24 | 'X'<<16 | 'P'<<8 | 'N'
	vHELO = 'H'<<24 | 'E'<<16 | 'L'<<8 | 'O'
	vHELP = 'H'<<24 | 'E'<<16 | 'L'<<8 | 'P'
	vLHLO = 'L'<<24 | 'H'<<16 | 'L'<<8 | 'O'
	vMAIL = 'M'<<24 | 'A'<<16 | 'I'<<8 | 'L'
	vNOOP = 'N'<<24 | 'O'<<16 | 'O'<<8 | 'P'
	vQUIT = 'Q'<<24 | 'U'<<16 | 'I'<<8 | 'T'
	vRCPT = 'R'<<24 | 'C'<<16 | 'P'<<8 | 'T'
	vRSET = 'R'<<24 | 'S'<<16 | 'E'<<8 | 'T'
	vVRFY = 'V'<<24 | 'R'<<16 | 'F'<<8 | 'Y'
)

// cutVerb splits a command line; verb is 0 for a word that is no verb of four
// letters. ok is false for a line that cannot be a command at all: empty, with a
// control character, or with a verb outside of ASCII.
func cutVerb(line []byte) (verb uint32, arg []byte, ok bool) {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, nil, false
		}
	}
	n := 0
	for n < len(line) && line[n] != ' ' && line[n] != '\t' {
		if line[n] >= 0x80 {
			return 0, nil, false
		}
		n++
	}
	if n == 0 {
		return 0, nil, false
	}
	if n == 4 {
		for _, c := range line[:4] {
			if c >= 'a' && c <= 'z' {
				c -= 'a' - 'A'
			}
			verb = verb<<8 | uint32(c)
		}
	}
	return verb, trimBlanks(line[n:]), true
}

func trimBlanks(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func (s *Session) syntax(usage string) Reply {
	return s.fault(Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Syntax: " + usage})
}

func (s *Session) unknown(line []byte) Reply {
	s.unknowns++
	if n := s.srv.limits.UnknownCommands; n > 0 && s.unknowns >= n {
		return replyUnknowns
	}
	word := firstWord(line)
	return s.fault(Reply{Code: 500, Enhanced: Enhanced{5, 5, 1}, Text: `Error: command "` + word + `" not recognized`})
}

// firstWord is the verb of a command line, at most 40 octets of it.
func firstWord(line []byte) string {
	word := string(line[:min(len(line), 40)])
	if i := strings.IndexAny(word, " \t"); i >= 0 {
		word = word[:i]
	}
	return word
}

// noop: RFC 5321 section 4.1.1.9; the argument is ignored.
func (s *Session) noop(ctx context.Context, arg []byte) Reply {
	if f := s.srv.Policy.Noop; f != nil {
		return f(ctx, s, string(arg)).or(replyOK)
	}
	return replyOK
}

// rset: RFC 5321 section 4.1.1.5.
func (s *Session) rset(ctx context.Context, arg []byte) Reply {
	if len(arg) > 0 {
		return s.syntax("RSET")
	}
	r := call(s.srv.Policy.Reset, ctx, s)
	if r.OK() {
		if s.tx == nil {
			s.idle.probed()
		}
		s.reset()
	}
	return r.or(replyOK)
}

// reset forgets the transaction, and nothing else.
func (s *Session) reset() {
	s.tx, s.refusedRcpts, s.refused = nil, 0, false
	s.forward = Forward{}
	if s.state == StateActive {
		s.enter(StateIdle)
	}
}

// quit: RFC 5321 section 4.1.1.10.
func (s *Session) quit(ctx context.Context, arg []byte) Reply {
	if len(arg) > 0 {
		return s.syntax("QUIT")
	}
	r := call(s.srv.Policy.Quit, ctx, s).or(replyBye)
	if r.OK() && r.Then == Continue {
		r.Then = CloseAfter
	}
	return r
}

// vrfy: RFC 5321 section 4.1.1.6, and section 7.3 for saying nothing by default.
func (s *Session) vrfy(ctx context.Context, arg []byte) Reply {
	if len(arg) == 0 {
		return s.syntax("VRFY <address>")
	}
	if f := s.srv.Policy.Verify; f != nil {
		return f(ctx, s, string(arg)).or(replyNoVrfy)
	}
	// RFC 6531 section 3.7.4.2 gives VRFY a parameter.
	addr, param, _ := strings.Cut(string(arg), " ")
	if param != "" && !(strings.EqualFold(param, "SMTPUTF8") && s.utf8Offered()) {
		addr = string(arg)
	}
	if _, err := ParsePath(strings.Trim(addr, "<>"), s.utf8Offered()); err != nil {
		return replyBadVrfy
	}
	return replyNoVrfy
}

// expn: RFC 5321 section 4.1.1.7.
func (s *Session) expn(ctx context.Context, arg []byte) Reply {
	if f := s.srv.Policy.Expand; f != nil {
		return f(ctx, s, string(arg)).or(replyNoExpn)
	}
	return replyNoExpn
}

// isWord reports whether word, in any case, is the verb of a command line.
func isWord(line []byte, word string) bool {
	return len(line) >= len(word) && strings.EqualFold(string(line[:len(word)]), word) &&
		(len(line) == len(word) || line[len(word)] == ' ' || line[len(word)] == '\t')
}
