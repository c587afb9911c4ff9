// Command gosmtp is a server of github.com/emersion/go-smtp that takes every
// message and drops it, for the benchmark.
//
//	gosmtp lmtp|smtp /path/of/socket
package main

import (
	"fmt"
	"io"
	"net"
	"os"

	"github.com/emersion/go-smtp"
)

type backend struct{}

func (backend) NewSession(*smtp.Conn) (smtp.Session, error) { return session{}, nil }

// session implements smtp.LMTPSession as well.
type session struct{}

func (session) Reset()                                       {}
func (session) Logout() error                                { return nil }
func (session) Mail(string, *smtp.MailOptions) error         { return nil }
func (session) Rcpt(to string, opts *smtp.RcptOptions) error { return nil }

func (session) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

// LMTPData leaves the status of each recipient to the result: nil is 250.
func (s session) LMTPData(r io.Reader, status smtp.StatusCollector) error { return s.Data(r) }

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gosmtp lmtp|smtp /path/of/socket")
		os.Exit(64)
	}
	s := smtp.NewServer(backend{})
	s.Domain = "mx.example.org"
	s.LMTP = os.Args[1] == "lmtp"
	s.MaxRecipients = 1000
	s.MaxMessageBytes = 64 << 20
	l, err := net.Listen("unix", os.Args[2])
	if err == nil {
		err = s.Serve(l)
	}
	fmt.Fprintln(os.Stderr, "gosmtp:", err)
	os.Exit(1)
}
