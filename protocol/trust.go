package protocol

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Trust is what a peer may say about the client that it speaks for.
type Trust uint8

const (
	// TrustXForward lets a content filter or another MTA of the same site pass on
	// with XFORWARD where a message came from, for the log
	// (https://www.postfix.org/XFORWARD_README.html).
	TrustXForward Trust = 1 << iota
	// TrustXClient lets a proxy put the client's name and address in place of its
	// own with XCLIENT (https://www.postfix.org/XCLIENT_README.html).
	TrustXClient
	// TrustProxy expects a PROXY header before anything else; a connection without
	// one is closed.
	TrustProxy
)

// Forward is where a message came from, as an MTA in front of the client said with
// XFORWARD. "" stands for what it did not say or does not know. The values have no
// control characters, and are otherwise as untrusted as their origin.
type Forward struct {
	Name   string // host name
	Addr   string // network address, without "IPv6:"
	Port   string
	Proto  string // SMTP, ESMTP
	Helo   string
	Ident  string // queue id: what ties log lines of both programs together
	Source string // LOCAL or REMOTE
}

var (
	xforwardNames = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"}
	xclientNames  = []string{"NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"}

	replyAttribute  = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: bad attribute or value"}
	replyInMail     = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Error: MAIL transaction in progress"}
	replyForwardOK  = Reply{Code: 250, Enhanced: Enhanced{2, 0, 0}, Text: "OK"}
	maxAttribute    = 255 // octets, as both documents have it
	xclientUnknowns = []string{"[UNAVAILABLE]", "[TEMPUNAVAIL]"}
)

// cutAttribute takes the next name=value off s; the value is decoded, and "" where
// the peer does not know it.
func cutAttribute(s string, names []string) (name, value, rest string, ok bool) {
	word, rest, _ := strings.Cut(strings.TrimLeft(s, " \t"), " ")
	name, value, ok = strings.Cut(word, "=")
	name = strings.ToUpper(name)
	if !ok || !slices.Contains(names, name) {
		return "", "", "", false
	}
	if slices.ContainsFunc(xclientUnknowns, func(u string) bool { return strings.EqualFold(u, value) }) {
		return name, "", rest, true
	}
	value, ok = decodeXtext(value)
	return name, value, rest, ok && value != "" && len(value) <= maxAttribute
}

// xforward notes what is known of a message that is about to come; it is forgotten
// when that transaction ends.
func (s *Session) xforward(arg []byte) Reply {
	if s.tx != nil {
		return s.fault(replyInMail)
	}
	f := s.forward
	for rest := string(arg); rest != "" || len(arg) == 0; {
		name, value, after, ok := cutAttribute(rest, xforwardNames)
		if !ok {
			return s.fault(replyAttribute)
		}
		*map[string]*string{
			"NAME": &f.Name, "ADDR": &f.Addr, "PORT": &f.Port, "PROTO": &f.Proto, "HELO": &f.Helo, "IDENT": &f.Ident, "SOURCE": &f.Source,
		}[name] = value
		rest = after
	}
	f.Addr = cutIPv6(f.Addr)
	s.forward = f
	return replyForwardOK
}

func cutIPv6(addr string) string {
	if len(addr) > 5 && strings.EqualFold(addr[:5], "IPv6:") {
		return addr[5:]
	}
	return addr
}

// xclient puts another client in place of the peer, and begins the session anew with
// the greeting.
func (s *Session) xclient(ctx context.Context, arg []byte) Reply {
	if s.tx != nil {
		return s.fault(replyInMail)
	}
	given := make(map[string]string)
	for rest := string(arg); rest != "" || len(arg) == 0; {
		name, value, after, ok := cutAttribute(rest, xclientNames)
		if !ok {
			return s.fault(replyAttribute)
		}
		given[name] = value
		rest = after
	}
	remote, ok1 := otherAddr(s.RemoteAddr, given, "ADDR", "PORT")
	local, ok2 := otherAddr(s.LocalAddr, given, "DESTADDR", "DESTPORT")
	if !ok1 || !ok2 {
		return s.fault(replyAttribute)
	}
	s.RemoteAddr, s.LocalAddr = remote, local
	set := func(field *string, name string) {
		if v, ok := given[name]; ok {
			*field = v
		}
	}
	set(&s.RemoteName, "NAME")
	set(&s.Login, "LOGIN")
	s.reset()
	// HELO and PROTO need no memory: the proxy says HELO or EHLO again in the
	// client's name.
	s.Hello, s.Extended = "", false
	return Reply{Code: replied.Code, Then: s.greet(ctx).Then}
}

// otherAddr is a with the address and port that were given in place of its own; one
// that the peer does not know is the unspecified address.
func otherAddr(a net.Addr, given map[string]string, addr, port string) (net.Addr, bool) {
	host, okAddr := given[addr]
	number, okPort := given[port]
	if !okAddr && !okPort {
		return a, true
	}
	var to netip.AddrPort
	if tcp, ok := a.(*net.TCPAddr); ok {
		to = tcp.AddrPort()
	}
	ip, p := to.Addr(), to.Port()
	if okAddr {
		ip = netip.IPv4Unspecified()
		if host != "" {
			var err error
			if ip, err = netip.ParseAddr(cutIPv6(host)); err != nil {
				return nil, false
			}
		}
	}
	if okPort {
		p = 0
		if number != "" {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil {
				return nil, false
			}
			p = uint16(n)
		}
	}
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, p)), true
}
