package protocol_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// dialogServer is what the dialogs talk to. Addresses say what happens to them:
//
//	unknown@   550 5.1.1 at RCPT           refused@  550 5.7.1 at MAIL or HELO name refused.example
//	later@     451 4.3.0 at RCPT           full@     452 4.2.2 after the data
//	gone@      550 5.2.1 after the data    utf8@     a reply with a letter outside ASCII
//	close@     accepted, then closed       cut@      closed without a reply
type dialogServer struct {
	srv *protocol.Server

	mu       sync.Mutex
	messages []string
}

func newDialogServer(t testing.TB, d *dialog) *dialogServer {
	t.Helper()
	ds := &dialogServer{}
	ds.srv = &protocol.Server{
		Mode: protocol.LMTP, Hostname: "mx.example.org", Ident: "ready",
		Handler: protocol.HandlerFunc(ds.deliver),
		Policy:  dialogPolicy,
		Log:     quiet,
	}
	for _, kv := range d.settings {
		if err := ds.set(d, kv[0], kv[1]); err != nil {
			t.Fatalf("%s: set %s %s: %v", d.name, kv[0], kv[1], err)
		}
	}
	return ds
}

var dialogPolicy = protocol.Policy{
	Hello: func(_ context.Context, _ *protocol.Session, name string) protocol.Reply {
		if name == "refused.example" {
			return protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "No")
		}
		return protocol.Reply{}
	},
	Mail: func(_ context.Context, tx *protocol.Transaction) protocol.Reply { return dialogReply(tx.From.Local) },
	Rcpt: func(_ context.Context, _ *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
		return dialogReply(rcpt.Path.Local)
	},
}

func dialogReply(local string) protocol.Reply {
	switch local {
	case "unknown":
		return protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "No such user")
	case "refused":
		return protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "Refused")
	case "later":
		return protocol.Replyf(451, protocol.Enhanced{4, 3, 0}, "Not now")
	case "utf8":
		return protocol.Replyf(250, protocol.Enhanced{2, 1, 5}, "Grüße")
	case "lines":
		return protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "First\nSecond\nThird")
	case "close":
		return protocol.Reply{Then: protocol.CloseAfter}
	case "cut":
		return protocol.Reply{Code: 550, Then: protocol.CloseNow}
	case "panic":
		panic("as the dialog asked for")
	}
	return protocol.Reply{}
}

// deliver takes the message and settles recipients as their names say.
func (ds *dialogServer) deliver(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
	if tx.From.Local == "early" {
		return protocol.Replyf(554, protocol.Enhanced{5, 6, 0}, "Not this one")
	}
	if tx.From.Local == "named" {
		tx.ID = "4f2a"
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	m := "<" + tx.From.String() + ">"
	for i := range tx.Rcpts {
		m += " <" + tx.Rcpts[i].Path.String() + ">"
	}
	ds.mu.Lock()
	ds.messages = append(ds.messages, m+" "+string(data))
	ds.mu.Unlock()
	switch tx.From.Local {
	case "error":
		return errors.New("a disk has caught fire at /var/mail")
	case "bug":
		panic("as the dialog asked for")
	}
	for i := range tx.Rcpts {
		switch tx.Rcpts[i].Path.Local {
		case "full":
			tx.Settle(i, protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "Mailbox full"))
		case "gone":
			tx.Settle(i, protocol.Replyf(550, protocol.Enhanced{5, 2, 1}, "Disabled"))
		}
	}
	return nil
}

// set changes one setting of the server.
func (ds *dialogServer) set(d *dialog, key, value string) error {
	n, _ := strconv.Atoi(value)
	srv := ds.srv
	switch key {
	case "mode":
		srv.Mode = map[string]protocol.Mode{"smtp": protocol.SMTP, "lmtp": protocol.LMTP}[value]
	case "newlines":
		srv.Newlines = map[string]protocol.Newlines{"preserve": protocol.NewlinesPreserve, "reject": protocol.NewlinesReject, "normalize": protocol.NewlinesNormalize}[value]
	case "size":
		srv.Limits.MessageSize = int64(n)
	case "recipients":
		srv.Limits.Recipients = n
	case "line":
		srv.Limits.CommandLine = n
	case "verb-line":
		srv.Limits.CommandLines = map[string]int{"NOOP": n}
	case "calls":
		srv.Limits.Calls = map[string]int{"NOOP": n, "*": 4}
	case "content-line":
		srv.Limits.ContentLine = n
	case "errors":
		srv.Limits.Errors = n
	case "unknown":
		srv.Limits.UnknownCommands = n
	case "ident":
		srv.Ident = value
	case "without":
		srv.Ext = protocol.DefaultExt
		for _, word := range strings.Fields(value) {
			srv.Ext &^= map[string]protocol.Ext{
				"SIZE": protocol.ExtSize, "8BITMIME": protocol.Ext8BitMIME, "SMTPUTF8": protocol.ExtSMTPUTF8,
				"LIMITS": protocol.ExtLimits, "CHUNKING": protocol.ExtChunking, "BINARYMIME": protocol.ExtBinaryMIME,
				"HELP": protocol.ExtHelp, "PIPELINING": protocol.ExtPipelining, "ENHANCEDSTATUSCODES": protocol.ExtEnhanced,
			}[word]
		}
	case "tls":
		ds.tls(d, value)
	case "with":
		srv.Ext = protocol.DefaultExt
		for _, word := range strings.Fields(value) {
			srv.Ext |= map[string]protocol.Ext{"RRVS": protocol.ExtRRVS, "REQUIRETLS": protocol.ExtRequireTLS, "DSN": protocol.ExtDSN}[word]
		}
	case "auth":
		ds.auth(value)
	case "trust":
		srv.Trust = func(s *protocol.Session) (t protocol.Trust) {
			if strings.Contains(value, "xforward") {
				t |= protocol.TrustXForward
			}
			if strings.Contains(value, "xclient") {
				t |= protocol.TrustXClient
			}
			if strings.Contains(value, "proxy") {
				t |= protocol.TrustProxy
			}
			return t
		}
	case "dsn":
		srv.Ext = protocol.DefaultExt | protocol.ExtDSN
	case "hook":
		return ds.hook(value)
	default:
		return errors.New("no such setting")
	}
	return nil
}

// auth lets joe in, with "secret"; words say what else there is.
func (ds *dialogServer) auth(words string) {
	ds.srv.Auth = protocol.Auth{
		Check: protocol.AuthenticatorFunc(func(_ context.Context, _ *protocol.Session, _, authzid, user, password string) (*protocol.Identity, error) {
			switch {
			case user == "joe" && password == "secret":
				return &protocol.Identity{User: user, Authzid: authzid}, nil
			case user == "down":
				return nil, errors.New("the database at /var/lib is down")
			case user == "ann":
				return &protocol.Identity{User: user}, protocol.Replyf(250, protocol.Enhanced{2, 7, 0}, "Welcome back")
			case user == "bob":
				return nil, protocol.Replyf(250, protocol.Enhanced{2, 7, 0}, "nobody")
			case user == "locked":
				return nil, protocol.Replyf(525, protocol.Enhanced{5, 7, 13}, "Account disabled")
			case user == "nobody":
				return nil, nil
			}
			return nil, protocol.ErrCredentials
		}),
		AllowPlaintext: strings.Contains(words, "plaintext"),
		Required:       strings.Contains(words, "required"),
	}
	if strings.Contains(words, "prompts") {
		ds.srv.Auth.LoginPrompts = [2]string{"Username:", "Password:"}
	}
	if strings.Contains(words, "echo") {
		ds.srv.Auth.Mechanisms = map[string]func(*protocol.Session) protocol.Mechanism{
			"XECHO": func(*protocol.Session) protocol.Mechanism { return echoMechanism{} }, "LOGIN": nil,
		}
	}
	ds.srv.Policy.Noop = func(_ context.Context, s *protocol.Session, _ string) protocol.Reply {
		if s.Identity == nil {
			return protocol.Reply{}
		}
		return protocol.Replyf(250, protocol.Enhanced{}, "%+v", *s.Identity)
	}
}

// echoMechanism sends every response back until it is "joe".
type echoMechanism struct{}

func (echoMechanism) Next(_ context.Context, response []byte) ([]byte, *protocol.Identity, error) {
	if string(response) == "joe" {
		return nil, &protocol.Identity{User: "joe"}, nil
	}
	return response, nil, nil
}

// hook installs one of the policies that a dialog may ask for.
func (ds *dialogServer) hook(name string) error {
	p := &ds.srv.Policy
	switch name {
	case "connect-refuse":
		p.Connect = func(context.Context, *protocol.Session) protocol.Reply {
			return protocol.Replyf(554, protocol.Enhanced{5, 7, 1}, "SMTP service not available")
		}
	case "connect-cut":
		p.Connect = func(context.Context, *protocol.Session) protocol.Reply {
			return protocol.Reply{Then: protocol.CloseNow}
		}
	case "connect-text":
		p.Connect = func(context.Context, *protocol.Session) protocol.Reply {
			return protocol.Replyf(220, protocol.Enhanced{}, "mx.example.org Hello\nfriend")
		}
	case "data-refuse":
		p.Data = func(context.Context, *protocol.Transaction) protocol.Reply {
			return protocol.Replyf(451, protocol.Enhanced{4, 7, 1}, "Greylisted")
		}
	case "noop-panic":
		p.Noop = func(context.Context, *protocol.Session, string) protocol.Reply { panic("as the dialog asked for") }
	case "data-close":
		p.Data = func(context.Context, *protocol.Transaction) protocol.Reply {
			return protocol.Reply{Then: protocol.CloseAfter}
		}
	case "proxy-refuse":
		p.Proxy = func(context.Context, *protocol.Session) protocol.Reply {
			return protocol.Replyf(554, protocol.Enhanced{}, "not you")
		}
	case "show-forward":
		p.Mail = func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 0}, "%+v", tx.Forward)
		}
	case "show-params":
		p.Mail = func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 0}, "ret %q envid %q auth %q", tx.Mail.Ret, tx.Mail.EnvID, tx.Mail.Auth)
		}
		p.Rcpt = func(_ context.Context, _ *protocol.Transaction, r *protocol.Recipient) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 5}, "%04b %q", r.Notify, r.ORcpt)
		}
	case "show-promises":
		p.Mail = func(_ context.Context, tx *protocol.Transaction) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 0}, "require TLS: %t", tx.Mail.RequireTLS)
		}
		p.Rcpt = func(_ context.Context, _ *protocol.Transaction, r *protocol.Recipient) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 5}, "valid since %s %q", r.RRVS.Time.UTC().Format(time.RFC3339Nano), r.RRVS.Action)
		}
	case "show-client":
		p.Noop = func(_ context.Context, s *protocol.Session, _ string) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{}, "%v %v %q %q %q", s.RemoteAddr, s.LocalAddr, s.RemoteName, s.Login, s.Hello)
		}
	case "verbs":
		ds.srv.Verbs = map[string]protocol.Verb{
			"NOW": {Syntax: "NOW [zone]", SyntaxExtended: " [SP <clock>]", Keyword: "NOW UTC", NeedHello: true,
				Serve: func(_ context.Context, _ *protocol.Session, zone string) protocol.Reply {
					return protocol.Replyf(250, protocol.Enhanced{}, "twelve o'clock in %s", zone)
				}},
			"XSECRET": {Syntax: "XSECRET", Serve: func(context.Context, *protocol.Session, string) protocol.Reply { return protocol.Reply{} },
				Available: func(s *protocol.Session) bool { return s.Hello == "friend.example.org" }},
			"NOOP": {Serve: func(context.Context, *protocol.Session, string) protocol.Reply {
				return protocol.Replyf(250, protocol.Enhanced{}, "mine")
			}},
			"VRFY": {},
			"COUNT": {Serve: func(_ context.Context, s *protocol.Session, _ string) protocol.Reply {
				s.Push(protocol.Reply{})
				s.Push(protocol.Replyf(250, protocol.Enhanced{2, 1, 0}, "two"))
				return protocol.Replyf(450, protocol.Enhanced{}, "three")
			}},
		}
	case "rfc2033":
		ds.srv.Hostname = "foo.edu"
		p.Rcpt = func(_ context.Context, _ *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
			if rcpt.Path.Local == "jones" {
				return protocol.Replyf(550, protocol.Enhanced{5, 1, 1}, "No such user here")
			}
			return protocol.Reply{}
		}
		ds.srv.Handler = protocol.HandlerFunc(func(ctx context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			tx.Settle(1, protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "<green@foo.edu> is temporarily over quota"))
			return ds.deliver(ctx, tx, body)
		})
	case "verify":
		p.Verify = func(_ context.Context, _ *protocol.Session, arg string) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 5}, "<%s>", strings.Trim(arg, "<>"))
		}
		p.Expand = func(context.Context, *protocol.Session, string) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{2, 1, 5}, "<a@example.org>\n<b@example.org>")
		}
	case "small-verbs":
		p.Noop = func(_ context.Context, _ *protocol.Session, arg string) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{}, "noted: %s", arg)
		}
		p.Reset = func(context.Context, *protocol.Session) protocol.Reply {
			return protocol.Replyf(250, protocol.Enhanced{}, "Reset OK")
		}
		p.Quit = func(_ context.Context, s *protocol.Session) protocol.Reply {
			return protocol.Replyf(221, protocol.Enhanced{}, "%s closing connection", "mx.example.org")
		}
	case "extensions":
		p.Extensions = func(_ context.Context, _ *protocol.Session, lines []string) []string {
			return append(slices.DeleteFunc(lines, func(l string) bool { return l == "HELP" }), "XHOUSE 1 2")
		}
	case "failure":
		p.Failure = func(_ context.Context, _ *protocol.Session, err error) protocol.Reply {
			if pe := (*protocol.PanicError)(nil); errors.As(err, &pe) {
				return protocol.Replyf(421, protocol.Enhanced{4, 3, 0}, "Sorry (panic)")
			}
			return protocol.Replyf(450, protocol.Enhanced{4, 2, 0}, "Sorry")
		}
	case "params":
		ds.srv.Params = func(_ *protocol.Transaction, _ *protocol.Recipient, p protocol.Param) (bool, protocol.Reply) {
			if p.Key == "XNO" {
				return true, protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "Not with %s", p.Value)
			}
			return p.Key == "XCOLOUR", protocol.Reply{}
		}
	default:
		return errors.New("no such hook")
	}
	return nil
}

// check compares the messages handed over with those of the dialog.
func (ds *dialogServer) check(t testing.TB, d *dialog) {
	t.Helper()
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if !slices.Equal(ds.messages, d.messages) {
		t.Fatalf("messages handed over: %q\nwant %q", ds.messages, d.messages)
	}
}
