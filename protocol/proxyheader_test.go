package protocol

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// proxyV2Header makes a header of version 2.
func proxyV2Header(command, family byte, body string) string {
	return string(proxyV2) + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

func tlv(typ byte, value string) string {
	return string([]byte{typ}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(value)))) + value
}

const v4 = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\xe1\x00\x19" // 192.0.2.1:4321 to 192.0.2.2:25

// summed puts a right checksum into a header that ends with a CRC32C of zeros.
func summed(header string) string {
	sum := crc32.Checksum([]byte(header), crc32.MakeTable(crc32.Castagnoli))
	return header[:len(header)-4] + string(binary.BigEndian.AppendUint32(nil, sum))
}

func TestProxyHeader(t *testing.T) {
	v6 := "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02" + "\x10\xe1\x00\x19"
	unix := "/a" + strings.Repeat("\x00", 106) + "/b" + strings.Repeat("\x00", 106)
	for _, c := range []struct{ in, want string }{
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4321 25\r\n", "1 192.0.2.1:4321 192.0.2.2:25 0"},
		{"PROXY TCP6 2001:db8::1 2001:db8::2 4321 25\r\n", "1 [2001:db8::1]:4321 [2001:db8::2]:25 0"},
		{"PROXY UNKNOWN\r\n", "1 <nil> <nil> 0"},
		{"PROXY UNKNOWN whatever it says\r\n", "1 <nil> <nil> 0"},
		{proxyV2Header(0x21, 0x11, v4), "2 192.0.2.1:4321 192.0.2.2:25 0"},
		{proxyV2Header(0x21, 0x12, v4+tlv(ProxyALPN, "smtp")+tlv(ProxyNoop, "")), "2 192.0.2.1:4321 192.0.2.2:25 2"},
		{proxyV2Header(0x21, 0x21, v6), "2 [2001:db8::1]:4321 [2001:db8::2]:25 0"},
		{proxyV2Header(0x21, 0x31, unix), "2 /a /b 0"},
		{proxyV2Header(0x21, 0x32, unix), "2 /a /b 0"},
		{proxyV2Header(0x21, 0x00, tlv(ProxyAuthority, "mx")), "2 <nil> <nil> 1"},
		{proxyV2Header(0x20, 0x11, "anything"), "2 <nil> <nil> 0"},
		{summed(proxyV2Header(0x21, 0x11, v4+tlv(ProxyCRC32C, "\x00\x00\x00\x00"))), "2 192.0.2.1:4321 192.0.2.2:25 1"},
	} {
		r := strings.NewReader(c.in + "QUIT\r\n")
		h, err := readProxyHeader(r)
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if got := fmt.Sprint(h.Version, " ", h.Source, " ", h.Destination, " ", len(h.TLVs)); got != c.want || string(h.Raw) != c.in {
			t.Errorf("%q: got %s, want %s (raw %q)", c.in, got, c.want, h.Raw)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "QUIT\r\n" {
			t.Errorf("%q: %q is left", c.in, rest)
		}
		for cut := range len(c.in) {
			if h, err := readProxyHeader(strings.NewReader(c.in[:cut])); err == nil {
				t.Errorf("%q cut at %d: %+v", c.in, cut, h)
			}
		}
	}
	for _, in := range []string{
		"EHLO client.example.org\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 4321\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 4321 25 26\r\n",
		"PROXY TCP4 2001:db8::1 2001:db8::2 4321 25\r\n",
		"PROXY TCP6 192.0.2.1 192.0.2.2 4321 25\r\n",
		"PROXY TCP6 fe80::1%eth0 fe80::2 4321 25\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 04321 25\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
		"PROXY UDP4 192.0.2.1 192.0.2.2 4321 25\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 4321 25\n" + strings.Repeat(" ", 200),
		"PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		proxyV2Header(0x11, 0x11, v4),
		proxyV2Header(0x22, 0x11, v4),
		proxyV2Header(0x21, 0x13, v4),
		proxyV2Header(0x21, 0x21, v4),
		proxyV2Header(0x21, 0x11, v4+"\x01\x00"),
		proxyV2Header(0x21, 0x11, v4+"\x01\x00\x05x"),
		proxyV2Header(0x21, 0x11, v4+tlv(ProxyCRC32C, "\x00\x00\x00\x01")),
		proxyV2Header(0x21, 0x11, v4+tlv(ProxyCRC32C, "\x00")),
		proxyV2Header(0x21, 0x11, v4+tlv(ProxyNoop, strings.Repeat("x", 5000))),
	} {
		if h, err := readProxyHeader(strings.NewReader(in)); !errors.Is(err, errProxy) {
			t.Errorf("%.60q: %+v, %v", in, h, err)
		}
	}
}

func TestProxyTLS(t *testing.T) {
	h := &ProxyHeader{}
	if info, err := h.TLS(); info != nil || err != nil {
		t.Errorf("without: %+v, %v", info, err)
	}
	h.TLVs = []ProxyTLV{{ProxySSL, []byte("\x03\x00\x00\x00\x00" + tlv(ProxySSLVersion, "TLSv1.3") + tlv(ProxySSLCN, "joe"))}}
	info, err := h.TLS()
	want := &ProxyTLS{Client: 3, Verified: true, TLVs: []ProxyTLV{{ProxySSLVersion, []byte("TLSv1.3")}, {ProxySSLCN, []byte("joe")}}}
	if err != nil || !reflect.DeepEqual(info, want) {
		t.Errorf("got %+v, %v", info, err)
	}
	for _, v := range []string{"\x01\x00\x00", "\x01\x00\x00\x00\x00\x21"} {
		h.TLVs[0].Value = []byte(v)
		if info, err := h.TLS(); err == nil {
			t.Errorf("%q: %+v", v, info)
		}
	}
}

// TestProxyLate: who says nothing in time is closed without a reply.
func TestProxyLate(t *testing.T) {
	client, server := net.Pipe()
	var told error
	srv := &Server{Trust: func(*Session) Trust { return TrustProxy }, Timeouts: Timeouts{Proxy: time.Millisecond}}
	srv.Policy = Chain(Policy{Failure: func(_ context.Context, _ *Session, err error) Reply { told = err; return Reply{} }})
	served := make(chan error, 1)
	go func() { served <- srv.ServeConn(context.Background(), server) }()
	if out, _ := io.ReadAll(client); len(out) > 0 {
		t.Errorf("got %q", out)
	}
	if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(told, os.ErrDeadlineExceeded) {
		t.Errorf("ServeConn returned %v, the policy was told %v", err, told)
	}
}

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 4321 25\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\nQUIT\r\n"))
	f.Add([]byte(proxyV2Header(0x21, 0x11, v4+tlv(ProxySSL, "\x03\x00\x00\x00\x00"+tlv(ProxySSLCN, "joe")))))
	f.Add([]byte(proxyV2Header(0x20, 0x00, "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := readProxyHeader(bytes.NewReader(data))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, h.Raw) || (h.Source == nil) != (h.Destination == nil) {
			t.Fatalf("%q: %+v", data, h)
		}
		h.TLS()
		again, err := readProxyHeader(bytes.NewReader(h.Raw))
		if err != nil || !reflect.DeepEqual(h, again) {
			t.Fatalf("%q: %+v, then %+v, %v", data, h, again, err)
		}
	})
}
