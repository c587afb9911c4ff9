package main

import (
	"net"

	"github.com/lmtpd/lmtpd/protocol"
)

// trustLocal lets peers on this machine say with XFORWARD what the message is called
// in their log. That decides about nothing but a value in ours, and TCP on loopback
// and a Unix socket are where the MTA of the machine is.
func trustLocal(s *protocol.Session) protocol.Trust {
	switch a := s.PeerAddr.(type) {
	case *net.UnixAddr:
		return protocol.TrustXForward
	case *net.TCPAddr:
		if a.IP.IsLoopback() {
			return protocol.TrustXForward
		}
	}
	return 0
}
