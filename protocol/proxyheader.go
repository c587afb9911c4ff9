package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ProxyHeader is what a proxy in front of the server said of the connection, in
// version 1 or 2 of the PROXY protocol
// (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
type ProxyHeader struct {
	Version int // 1 or 2
	// Local is set for a connection of the proxy's own, such as a health check
	// (version 2, command LOCAL); the addresses are those of the connection then.
	Local bool
	// Source and Destination are the client's address and the one it connected to:
	// *net.TCPAddr, *net.UDPAddr or *net.UnixAddr; nil where the proxy does not know
	// (UNKNOWN, UNSPEC).
	Source, Destination net.Addr
	TLVs                []ProxyTLV // version 2, section 2.2
	Raw                 []byte     // the header as it came
}

// ProxyTLV is one type-length-value of a header.
type ProxyTLV struct {
	Type  byte
	Value []byte
}

// Types of ProxyTLV (section 2.2 of the specification).
const (
	ProxyALPN      = 0x01
	ProxyAuthority = 0x02
	ProxyCRC32C    = 0x03
	ProxyNoop      = 0x04
	ProxyUniqueID  = 0x05
	ProxySSL       = 0x20
	ProxyNetNS     = 0x30
)

// ProxyTLS is the value of a ProxySSL: what the proxy negotiated with the client.
type ProxyTLS struct {
	Client   byte // bits: 1 TLS was used, 2 certificate in this connection, 4 in this session
	Verified bool // the client's certificate was verified
	TLVs     []ProxyTLV
}

// Types of the TLVs within a ProxyTLS.
const (
	ProxySSLVersion = 0x21
	ProxySSLCN      = 0x22
	ProxySSLCipher  = 0x23
	ProxySSLSigAlg  = 0x24
	ProxySSLKeyAlg  = 0x25
)

// TLV gives the value of the first TLV of a type.
func (h *ProxyHeader) TLV(typ byte) ([]byte, bool) {
	for _, t := range h.TLVs {
		if t.Type == typ {
			return t.Value, true
		}
	}
	return nil, false
}

// TLS gives what the proxy negotiated with its client; nil if it said nothing.
func (h *ProxyHeader) TLS() (*ProxyTLS, error) {
	v, ok := h.TLV(ProxySSL)
	if !ok {
		return nil, nil
	}
	if len(v) < 5 {
		return nil, errProxy
	}
	t := &ProxyTLS{Client: v[0], Verified: binary.BigEndian.Uint32(v[1:]) == 0}
	var err error
	t.TLVs, err = proxyTLVs(v[5:])
	return t, err
}

// errProxy is behind every error of a malformed header.
var errProxy = errors.New("protocol: malformed PROXY header")

var proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")

const (
	maxProxyV1 = 107     // octets, with CR LF
	maxProxyV2 = 4 << 10 // octets; the addresses take up to 216, the rest is TLVs
)

// readProxyHeader reads a header from r, not one octet more, and in few reads.
func readProxyHeader(r io.Reader) (*ProxyHeader, error) {
	// Both versions are at least this long: "PROXY UNKNOWN\r\n" is 15.
	head := make([]byte, len(proxyV2))
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if bytes.Equal(head, proxyV2) {
		return readProxyV2(r, head)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return nil, fmt.Errorf("%w: no signature", errProxy)
	}
	for one := make([]byte, 1); !bytes.HasSuffix(head, crlf); head = append(head, one[0]) {
		if len(head) == maxProxyV1 {
			return nil, fmt.Errorf("%w: line too long", errProxy)
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
	}
	return parseProxyV1(head)
}

func parseProxyV1(line []byte) (*ProxyHeader, error) {
	h := &ProxyHeader{Version: 1, Raw: line}
	words := strings.Split(strings.TrimSuffix(string(line), "\r\n"), " ")
	if len(words) >= 2 && words[1] == "UNKNOWN" {
		return h, nil // what follows is to be ignored
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return nil, fmt.Errorf("%w: %q", errProxy, line)
	}
	source, err1 := proxyV1Addr(words[1], words[2], words[4])
	destination, err2 := proxyV1Addr(words[1], words[3], words[5])
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("%w: %q", errProxy, line)
	}
	h.Source, h.Destination = source, destination
	return h, nil
}

func proxyV1Addr(family, host, port string) (net.Addr, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" || ip.Is4() != (family == "TCP4") {
		return nil, errProxy
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || len(port) > 1 && port[0] == '0' {
		return nil, errProxy
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(n))), nil
}

func readProxyV2(r io.Reader, head []byte) (*ProxyHeader, error) {
	fixed := make([]byte, 4)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(fixed[2:]))
	if n > maxProxyV2 {
		return nil, fmt.Errorf("%w: %d octets", errProxy, n)
	}
	raw := append(append(head, fixed...), make([]byte, n)...)
	body := raw[len(raw)-n:]
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	h := &ProxyHeader{Version: 2, Raw: raw}
	switch fixed[0] {
	case 0x20:
		h.Local = true // whatever else it says is to be ignored
		return h, nil
	case 0x21:
	default:
		return nil, fmt.Errorf("%w: version and command %#x", errProxy, fixed[0])
	}
	rest, err := h.addresses(fixed[1], body)
	if err != nil {
		return nil, err
	}
	if h.TLVs, err = proxyTLVs(rest); err != nil {
		return nil, err
	}
	return h, checkProxyCRC(raw, rest)
}

// checkProxyCRC compares the checksum of a header that has one (section 2.2.3). tlvs
// are the octets at its end that hold the TLVs, known to be well-formed.
func checkProxyCRC(raw, tlvs []byte) error {
	for b := tlvs; len(b) > 0; {
		n := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if b[0] == ProxyCRC32C {
			if n != 7 {
				return fmt.Errorf("%w: checksum of %d octets", errProxy, n-3)
			}
			sum := bytes.Clone(raw)
			clear(sum[len(raw)-len(b)+3:][:4])
			if crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[3:]) {
				return fmt.Errorf("%w: wrong checksum", errProxy)
			}
		}
		b = b[n:]
	}
	return nil
}

// addresses reads those of a family and transport, and gives what follows.
func (h *ProxyHeader) addresses(family byte, b []byte) (rest []byte, err error) {
	size := map[byte]int{0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
	n, ok := size[family]
	if !ok || len(b) < n {
		return nil, fmt.Errorf("%w: family %#x in %d octets", errProxy, family, len(b))
	}
	half := (n - 4) / 2 // octets of an address
	switch family {
	case 0x00:
	case 0x31, 0x32:
		network := map[byte]string{0x31: "unix", 0x32: "unixgram"}[family]
		name := func(b []byte) string { name, _, _ := strings.Cut(string(b), "\x00"); return name }
		h.Source = &net.UnixAddr{Net: network, Name: name(b[:108])}
		h.Destination = &net.UnixAddr{Net: network, Name: name(b[108:216])}
	default:
		addr := func(ip, port []byte) net.Addr {
			a, _ := netip.AddrFromSlice(ip)
			ap := netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
			if family&0x0f == 2 {
				return net.UDPAddrFromAddrPort(ap)
			}
			return net.TCPAddrFromAddrPort(ap)
		}
		h.Source = addr(b[:half], b[2*half:])
		h.Destination = addr(b[half:2*half], b[2*half+2:])
	}
	return b[n:], nil
}

func proxyTLVs(b []byte) (all []ProxyTLV, err error) {
	for len(b) > 0 {
		if len(b) < 3 {
			return nil, fmt.Errorf("%w: TLV cut off", errProxy)
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			return nil, fmt.Errorf("%w: TLV cut off", errProxy)
		}
		all = append(all, ProxyTLV{Type: b[0], Value: b[3 : 3+n]})
		b = b[3+n:]
	}
	return all, nil
}
