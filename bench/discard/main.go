// Command discard is an LMTP or SMTP server of the protocol package that takes
// every message and drops it, for the benchmark. A program of its own, so that its
// memory and processor time are nobody else's.
//
//	discard lmtp|smtp /path/of/socket
package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/lmtpd/lmtpd/protocol"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: discard lmtp|smtp /path/of/socket")
		os.Exit(64)
	}
	l, err := net.Listen("unix", os.Args[2])
	if err == nil {
		err = serve(os.Args[1], l)
	}
	fmt.Fprintln(os.Stderr, "discard:", err)
	os.Exit(1)
}

func serve(mode string, l net.Listener) error {
	srv := &protocol.Server{Hostname: "mx.example.org", Handler: protocol.Discard, Limits: protocol.Limits{Sessions: -1}}
	switch mode {
	case "lmtp":
		srv.Mode = protocol.LMTP
	case "smtp":
		srv.Mode = protocol.SMTP
	default:
		return errors.New("neither lmtp nor smtp: " + mode)
	}
	return srv.Serve(l)
}
