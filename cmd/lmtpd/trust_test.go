package main

import (
	"net"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

func TestTrustLocal(t *testing.T) {
	for _, test := range []struct {
		peer net.Addr
		want protocol.Trust
	}{
		{&net.UnixAddr{Net: "unix"}, protocol.TrustXForward},
		{&net.TCPAddr{IP: net.IPv6loopback}, protocol.TrustXForward},
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, 0},
		{nil, 0},
	} {
		if got := trustLocal(&protocol.Session{PeerAddr: test.peer}); got != test.want {
			t.Errorf("%v: %v", test.peer, got)
		}
	}
}
