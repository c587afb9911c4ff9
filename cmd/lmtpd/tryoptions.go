package main

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/relay"
)

// tryOptions are the options of `lmtpd try`.
type tryOptions struct {
	dir         string
	smtp        string
	smtpAnyPort bool // smtp is the default, and another port will do
	smtps, lmtp string
	handler     string
	size        string
	utf8        bool
	cert, key   string
	requireTLS  bool
	authFile    string
	debug       bool
}

// defaultLMTP stands for DIR/lmtp.sock.
const defaultLMTP = "DIR/lmtp.sock"

func (o *tryOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "`DIR` for the socket and the mail (default ./lmtpd-try)")
	f.StringVar(&o.lmtp, "lmtp", defaultLMTP, "`ADDRESS` for LMTP: /PATH or HOST:PORT; empty: no LMTP")
	f.StringVar(&o.smtp, "smtp", defaultTrySMTP, "`ADDRESS` for SMTP: HOST:PORT or /PATH; port 0: any free one; empty: no SMTP")
	f.StringVar(&o.smtps, "smtps", "", "`ADDRESS` for SMTP with TLS from the start")
	f.StringVar(&o.handler, "handler", "maildir", "what becomes of messages: `HANDLER` is maildir, maildir:DIR, debug, debug:stderr, discard or relay:URL")
	f.StringVar(&o.size, "size", "", "largest message, such as 10MiB; 0: no limit (default that of the configuration)")
	f.BoolVar(&o.utf8, "smtputf8", true, "offer SMTPUTF8 over SMTP (LMTP always does)")
	f.StringVar(&o.cert, "tls-cert", "", "`FILE` with the certificate for STARTTLS and --smtps")
	f.StringVar(&o.key, "tls-key", "", "`FILE` with its key")
	f.BoolVar(&o.requireTLS, "require-tls", false, "refuse mail over SMTP that is not secured")
	f.StringVar(&o.authFile, "auth-file", "", "`FILE` of NAME:PASSWORD lines; clients of SMTP have to authenticate")
	f.BoolVarP(&o.debug, "debug", "d", false, "print the dialogs on standard error, secrets left out")
}

const protoSMTPS listenProto = "smtps" // of `lmtpd try` alone

// tryService is what the options say about the servers.
type tryService struct {
	out, err  *lockedWriter
	maildir   string // "": for each address one of its own
	delivers  bool   // to Maildirs, by the agent
	greeting  string // what becomes of messages
	handler   protocol.Handler
	policy    protocol.Policy
	ext       protocol.Ext
	size      *size
	tls       *tls.Config
	tlsNeeded bool
	auth      protocol.Auth
	debug     bool
}

// service checks the options. Errors are about the command line.
func (o *tryOptions) service(out, stderr *lockedWriter) (*tryService, error) {
	s := &tryService{out: out, err: stderr, ext: protocol.DefaultExt, tlsNeeded: o.requireTLS, debug: o.debug}
	if !o.utf8 {
		s.ext &^= protocol.ExtSMTPUTF8
	}
	if err := s.handle(o.handler); err != nil {
		return nil, err
	}
	if o.size != "" {
		s.size = new(size)
		if err := s.size.UnmarshalText([]byte(o.size)); err != nil {
			return nil, fmt.Errorf("--size: %w", err)
		}
	}
	switch {
	case (o.cert == "") != (o.key == ""):
		return nil, errors.New("--tls-cert and --tls-key go together")
	case o.cert != "":
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{pair}}
	case o.requireTLS:
		return nil, errors.New("--require-tls needs --tls-cert and --tls-key")
	case o.smtps != "":
		return nil, errors.New("--smtps needs --tls-cert and --tls-key")
	}
	if o.authFile == "" {
		return s, nil
	}
	check, err := readAuthFile(o.authFile)
	if err != nil {
		return nil, fmt.Errorf("--auth-file: %w", err)
	}
	if s.tls == nil && !isLocal(o.smtp) {
		return nil, fmt.Errorf("--auth-file: passwords would go to %s in clear; add --tls-cert and --tls-key, or listen on 127.0.0.1", o.smtp)
	}
	s.auth = protocol.Auth{Check: check, Required: true, AllowPlaintext: s.tls == nil}
	return s, nil
}

// handle sets up what becomes of messages.
func (s *tryService) handle(handler string) error {
	name, arg, hasArg := strings.Cut(handler, ":")
	bad := fmt.Errorf("--handler %s: write maildir, maildir:DIR, debug, debug:stderr, discard or relay:URL", handler)
	switch name {
	case "maildir":
		s.delivers, s.greeting = true, "every address has a mailbox"
		if hasArg {
			dir, err := filepath.Abs(arg)
			if err != nil || arg == "" {
				return bad
			}
			s.maildir, s.greeting = dir, "all mail goes to "+dir
		}
	case "debug":
		to := map[string]*lockedWriter{"": s.out, "stdout": s.out, "stderr": s.err}[arg]
		if to == nil {
			return bad
		}
		s.handler, s.greeting = protocol.Debug(to), "messages are printed and dropped"
	case "discard":
		if hasArg {
			return bad
		}
		s.handler, s.greeting = protocol.Discard, "messages are dropped"
	case "relay":
		r, err := relay.Parse(arg)
		if err != nil {
			return fmt.Errorf("--handler relay: %w", err)
		}
		r.XPeer = true
		s.handler, s.policy, s.greeting = r, r.Policy(), "messages are handed on to "+arg
		s.ext &^= protocol.ExtBinaryMIME // which a relay cannot pass on
	default:
		return bad
	}
	return nil
}

// adapt makes a server, which has been built for the daemon's purpose, that of the
// options.
func (s *tryService) adapt(srv *protocol.Server, p listenProto) server {
	if !s.delivers {
		srv.Handler, srv.Policy = s.handler, s.policy
	}
	srv.Ext = s.ext
	srv.TLSConfig = s.tls
	srv.Trace = &protocol.Trace{}
	if !s.delivers {
		srv.Trace.Message = s.report
	}
	if s.debug {
		srv.Trace.Wire = s.wire
	}
	if p != protoLMTP {
		srv.Mode, srv.TLSNeeded, srv.Auth = protocol.SMTP, s.tlsNeeded, s.auth
	}
	if p == protoSMTPS {
		return tlsServer{srv}
	}
	return srv
}

// tlsServer speaks TLS from the start.
type tlsServer struct{ *protocol.Server }

func (s tlsServer) Serve(l net.Listener) error { return s.ServeTLS(l) }

// report prints a line for each recipient of a message that has gone elsewhere than
// into a Maildir.
func (s *tryService) report(tx *protocol.Transaction, octets int64, results []protocol.Reply, _ time.Duration) {
	var lines strings.Builder
	for i, r := range results {
		status := "taken"
		switch {
		case r.Temporary():
			status = "deferred"
		case !r.OK():
			status = "refused"
		}
		fmt.Fprintf(&lines, "%-9s  %s  from <%s>  %d octets  %s\n", status, tx.Rcpts[i].Path, tx.From, octets, oneLine(r.Error()))
	}
	fmt.Fprint(s.out, lines.String())
}

func (s *tryService) wire(session *protocol.Session, dir protocol.Direction, line []byte) {
	text := strings.TrimRight(string(line), "\r\n")
	for l := range strings.SplitSeq(text, "\r\n") {
		fmt.Fprintf(s.err, "%x %c %s\n", session.ID&0xffff, dir, oneLine(l))
	}
}

// oneLine makes s safe to print: what a client sent may have control characters.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// isLocal reports whether nobody but this machine can connect to an address.
func isLocal(address string) bool {
	if strings.Contains(address, "/") || address == "" {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// passwords are those of an authentication file, by name.
type passwords map[string]string

// readAuthFile reads lines of NAME:PASSWORD; empty ones and those with a # at the
// front are passed over. A password may have {PLAIN} before it.
func readAuthFile(path string) (passwords, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list := make(passwords)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		password = strings.TrimPrefix(password, "{PLAIN}")
		switch {
		case !ok || name == "" || password == "":
			return nil, fmt.Errorf("%s:%d: write NAME:PASSWORD", path, n)
		case strings.HasPrefix(password, "{") && strings.Contains(password, "}"), strings.HasPrefix(password, "$"):
			return nil, fmt.Errorf("%s:%d: a hashed password cannot be checked here; write it as it is, behind {PLAIN}", path, n)
		}
		list[name] = password
	}
	return list, lines.Err()
}

// Authenticate implements protocol.Authenticator.
func (p passwords) Authenticate(_ context.Context, _ *protocol.Session, _, authzid, user, password string) (*protocol.Identity, error) {
	want, ok := p[user]
	if subtle.ConstantTimeCompare([]byte(want), []byte(password)) != 1 || !ok || authzid != "" && authzid != user {
		return nil, protocol.ErrCredentials
	}
	return &protocol.Identity{User: user}, nil
}
