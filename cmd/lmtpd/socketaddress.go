package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is what fits into sockaddr_un beside the closing NUL, in octets (unix(7)).
const maxSocketPath = 107

// socketAddress is where a socket listens or is reached: "unix:/path", "/path" or
// "tcp:HOST:PORT". The zero value is no address.
type socketAddress struct {
	Network string // "unix" or "tcp"
	Address string // absolute path, or HOST:PORT with brackets around an IPv6 address
}

// parseSocketAddress reads text as the configuration and the command line write it.
func parseSocketAddress(text string) (socketAddress, error) {
	switch {
	case strings.HasPrefix(text, "unix:"):
		return parseUnixAddress(text, strings.TrimPrefix(text, "unix:"))
	case strings.HasPrefix(text, "/"):
		return parseUnixAddress(text, text)
	case strings.HasPrefix(text, "tcp:"):
		return parseTCPAddress(text, strings.TrimPrefix(text, "tcp:"))
	}
	return socketAddress{}, &valueError{quoted(text) + " is not an address", `write "unix:/path", "/path" or "tcp:HOST:PORT"`}
}

func parseUnixAddress(text, path string) (socketAddress, error) {
	bad := func(problem, remedy string) (socketAddress, error) {
		return socketAddress{}, &valueError{quoted(text) + " " + problem, remedy}
	}
	switch {
	case !strings.HasPrefix(path, "/"):
		return bad("is not an absolute path", `write it from the root, such as "unix:/run/lmtpd/lmtp.sock"`)
	case strings.HasSuffix(path, "/"):
		return bad("names a directory", "add the name of the socket, such as lmtp.sock")
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return bad("has a control character", "remove it")
	}
	path = filepath.Clean(path)
	switch {
	case path == "/":
		return bad("names a directory", "add the name of the socket, such as lmtp.sock")
	case len(path) > maxSocketPath:
		return bad(fmt.Sprintf("is %d octets long and the kernel takes %d", len(path), maxSocketPath), "use a shorter path")
	}
	return socketAddress{Network: "unix", Address: path}, nil
}

func parseTCPAddress(text, hostPort string) (socketAddress, error) {
	bad := func(problem, remedy string) (socketAddress, error) {
		return socketAddress{}, &valueError{quoted(text) + " " + problem, remedy}
	}
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return bad("is not HOST:PORT", `write "tcp:127.0.0.1:24", with brackets around an IPv6 address: "tcp:[::1]:24"`)
	}
	if host == "" {
		return bad("has no host", `write "tcp:127.0.0.1:`+port+`", or "tcp:[::]:`+port+`" for every address of this machine`)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == '[' || r == ']' }) {
		return bad("has a bad host", "write a name or an IP address")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return bad("has a bad port", "write a number from 0 to 65535 (0: any free port)")
	}
	return socketAddress{Network: "tcp", Address: net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
}

// UnmarshalText is parseSocketAddress.
func (a *socketAddress) UnmarshalText(text []byte) error {
	v, err := parseSocketAddress(string(text))
	if err == nil {
		*a = v
	}
	return err
}

// String is the form with the network before it, which parseSocketAddress reads again.
func (a socketAddress) String() string {
	if a.Network == "" {
		return ""
	}
	return a.Network + ":" + a.Address
}

// port is the TCP port, 0 for a Unix socket.
func (a socketAddress) port() int {
	if a.Network != "tcp" {
		return 0
	}
	_, p, _ := net.SplitHostPort(a.Address)
	n, _ := strconv.Atoi(p)
	return n
}
