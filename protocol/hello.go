package protocol

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// hello carries out HELO, EHLO (RFC 5321 section 4.1.1.1) and LHLO (RFC 2033
// section 4.1). A second one resets the transaction (RFC 5321 section 4.1.4).
func (s *Session) hello(ctx context.Context, arg []byte, verb uint32) Reply {
	r := s.greeted(ctx, arg, verb)
	if r.OK() && s.Extended {
		r.Text = s.offer(ctx, r.Text)
	}
	if r.Then != CloseNow {
		s.putPlain(r)
	}
	return Reply{Code: replied.Code, Then: r.Then}
}

func (s *Session) greeted(ctx context.Context, arg []byte, verb uint32) Reply {
	name := string(arg)
	if name == "" || strings.ContainsAny(name, " \t") || !utf8.ValidString(name) || len(name) > 255 {
		switch verb {
		case vHELO:
			return s.syntax("HELO hostname")
		case vEHLO:
			return s.syntax("EHLO hostname")
		}
		return s.syntax("LHLO hostname")
	}
	r := call1(s.srv.Policy.Hello, ctx, s, name)
	if !r.OK() {
		return r
	}
	s.reset()
	s.Hello = name
	s.Extended = verb != vHELO
	return r.or(Reply{Code: 250, Text: s.srv.hostname})
}

// offer adds the extensions to the reply.
func (s *Session) offer(ctx context.Context, text string) string {
	lines := s.extensions()
	if f := s.srv.Policy.Extensions; f != nil {
		lines = f(ctx, s, lines)
	}
	return strings.Join(append([]string{text}, lines...), "\n")
}

// extensions are the EHLO keywords (RFC 5321 section 4.1.1.1).
func (s *Session) extensions() (lines []string) {
	ext := s.srv.ext
	add := func(bit Ext, line string) {
		if ext&bit != 0 {
			lines = append(lines, line)
		}
	}
	if n := s.MessageSize; n > 0 {
		add(ExtSize, "SIZE "+strconv.FormatInt(n, 10))
	}
	add(Ext8BitMIME, "8BITMIME")
	add(ExtSMTPUTF8, "SMTPUTF8")
	add(ExtEnhanced, "ENHANCEDSTATUSCODES")
	add(ExtPipelining, "PIPELINING")
	add(ExtChunking, "CHUNKING")
	add(ExtBinaryMIME, "BINARYMIME")
	add(ExtDSN, "DSN")
	add(ExtRRVS, "RRVS")
	if s.requireTLSOffered() {
		lines = append(lines, "REQUIRETLS")
	}
	if n := s.srv.limits.Recipients; n > 0 {
		add(ExtLimits, "LIMITS RCPTMAX="+strconv.Itoa(n))
	}
	if s.srv.TLSConfig != nil && s.TLS == nil {
		lines = append(lines, "STARTTLS")
	}
	if names := s.mechanisms(); len(names) > 0 {
		lines = append(lines, "AUTH "+strings.Join(names, " "))
	}
	if s.trust&TrustXClient != 0 {
		lines = append(lines, "XCLIENT "+strings.Join(xclientNames, " "))
	}
	if s.trust&TrustXForward != 0 {
		lines = append(lines, "XFORWARD "+strings.Join(xforwardNames, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(s.srv.Verbs)) {
		if v := s.srv.Verbs[name]; v.Keyword != "" && v.available(s) {
			lines = append(lines, v.Keyword)
		}
	}
	add(ExtHelp, "HELP")
	return lines
}

// requireTLSOffered: RFC 8689 section 2 has it announced within TLS only.
func (s *Session) requireTLSOffered() bool { return s.srv.ext&ExtRequireTLS != 0 && s.TLS != nil }

func (s *Session) utf8Offered() bool { return s.srv.ext&ExtSMTPUTF8 != 0 && s.Extended }
