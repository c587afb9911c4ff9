package protocol

// verbName is the verb of a command line in upper case, of 24 octets at most, in buf.
func verbName(line []byte, buf *[24]byte) []byte {
	n := 0
	for n < len(line) && n < len(buf) && line[n] != ' ' && line[n] != '\t' && line[n] != '\r' {
		c := line[n]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[n] = c
		n++
	}
	return buf[:n]
}

// lineLimit is how long the command line that begins so may be.
func (s *Session) lineLimit(line []byte) int {
	l := &s.srv.limits
	var buf [24]byte
	name := verbName(line, &buf)
	if n, ok := l.CommandLines[string(name)]; ok {
		return n
	}
	n := l.CommandLine
	switch {
	case string(name) == "AUTH" && s.srv.Auth.offered():
		n = max(n, maxAuthLine)
	case string(name) == "MAIL" && s.Extended:
		n = min(n+s.srv.mailLine, max(n, 2048))
	case string(name) == "RCPT" && s.Extended:
		n = min(n+500, max(n, 2048)) // RFC 3461 section 4
	}
	return n
}

// mailLine is how much longer than 512 octets the extensions make a MAIL command: RFC
// 1870 section 3, RFC 6152 section 2, RFC 6531 section 3.4, RFC 3461 section 4, RFC
// 4954 section 3, RFC 8689 section 2.
func (srv *Server) mailLineGrowth() (n int) {
	for ext, octets := range map[Ext]int{ExtSize: 26, Ext8BitMIME: 17, ExtSMTPUTF8: 10, ExtDSN: 500, ExtRequireTLS: 11} {
		if srv.ext&ext != 0 {
			n += octets
		}
	}
	if srv.Auth.offered() {
		n += 500
	}
	return n
}

// called counts a command and refuses it beyond the limit of its verb.
func (s *Session) called(line []byte) Reply {
	limits := s.srv.limits.Calls
	if len(limits) == 0 {
		return Reply{}
	}
	var buf [24]byte
	name := verbName(line, &buf)
	most, ok := limits[string(name)]
	if !ok {
		if most, ok = limits["*"]; !ok {
			return Reply{}
		}
	}
	if s.calls == nil {
		s.calls = make(map[string]int)
	}
	if s.calls[string(name)] >= most {
		return Reply{Code: 421, Enhanced: Enhanced{4, 7, 0}, Text: string(name) + " sent too many times", Then: CloseAfter}
	}
	s.calls[string(name)]++
	return Reply{}
}
