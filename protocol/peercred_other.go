//go:build !linux

package protocol

import "net"

// peerCred: other systems have other ways, none of them portable.
func peerCred(net.Conn) *PeerCred { return nil }
