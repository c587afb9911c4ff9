package protocol

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strings"
)

// Auth is how a server authenticates clients (RFC 4954).
type Auth struct {
	// Check, if set, offers the mechanisms PLAIN (RFC 4616) and LOGIN.
	Check Authenticator
	// Mechanisms are others, by name in upper case; one with the name of a
	// mechanism of this package takes its place, a nil one takes it away. One step
	// of go-sasl's Server makes a Mechanism.
	Mechanisms map[string]func(*Session) Mechanism
	// Required refuses all but AUTH, HELO, EHLO, LHLO, STARTTLS, NOOP, RSET and QUIT
	// with 530 until the client has authenticated.
	Required bool
	// LoginPrompts are the two challenges of LOGIN; default "User Name" and "Password",
	// each with a NUL behind it. Some clients want "Username:" and "Password:".
	LoginPrompts [2]string
	// AllowPlaintext offers PLAIN and LOGIN without TLS too. Only where nobody can
	// listen: on a Unix socket or a test.
	AllowPlaintext bool
}

// Identity is who a client has shown to be.
type Identity struct {
	User      string // whose credentials they were
	Authzid   string // whom it wants to act as; "" for User
	Mechanism string // in upper case
	Value     any    // the authenticator's own
}

// Authenticator checks a name and password. It returns an identity, with nil or with a
// Reply of 2yz for its own words (235 in place of whatever its code is), or an error:
// ErrCredentials for a wrong name or password (535 5.7.8), a Reply for its own words,
// and anything else for what may be better later (454 4.7.0).
type Authenticator interface {
	Authenticate(ctx context.Context, s *Session, mechanism, authzid, user, password string) (*Identity, error)
}

// AuthenticatorFunc makes an Authenticator of a function.
type AuthenticatorFunc func(ctx context.Context, s *Session, mechanism, authzid, user, password string) (*Identity, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(ctx context.Context, s *Session, mechanism, authzid, user, password string) (*Identity, error) {
	return f(ctx, s, mechanism, authzid, user, password)
}

// Mechanism is one run of a SASL mechanism. Next is called with the initial response,
// nil if there was none, and then with each response; it gives the next challenge, or
// an identity when that is established, or an error as Authenticate does.
type Mechanism interface {
	Next(ctx context.Context, response []byte) (challenge []byte, id *Identity, err error)
}

// ErrCredentials says that name or password are wrong.
var ErrCredentials = errors.New("protocol: authentication credentials invalid")

var (
	replyAuthOK       = Reply{Code: 235, Enhanced: Enhanced{2, 7, 0}, Text: "Authentication successful"}
	replyAuthBad      = Reply{Code: 535, Enhanced: Enhanced{5, 7, 8}, Text: "Authentication credentials invalid"}
	replyAuthLater    = Reply{Code: 454, Enhanced: Enhanced{4, 7, 0}, Text: "Temporary authentication failure"}
	replyAuthAborted  = Reply{Code: 501, Enhanced: Enhanced{5, 7, 0}, Text: "Auth aborted"}
	replyAuthBase64   = Reply{Code: 501, Enhanced: Enhanced{5, 5, 2}, Text: "Can't decode base64"}
	replyAuthSplit    = Reply{Code: 501, Enhanced: Enhanced{5, 5, 2}, Text: "Can't split auth value"}
	replyAuthFew      = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Not enough value"}
	replyAuthMany     = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Too many values"}
	replyAuthUnknown  = Reply{Code: 504, Enhanced: Enhanced{5, 5, 4}, Text: "Unrecognized authentication type"}
	replyAuthTwice    = Reply{Code: 503, Enhanced: Enhanced{5, 5, 1}, Text: "Already authenticated"}
	replyAuthTLS      = Reply{Code: 538, Enhanced: Enhanced{5, 7, 11}, Text: "Encryption required for requested authentication mechanism"}
	replyAuthRequired = Reply{Code: 530, Enhanced: Enhanced{5, 7, 0}, Text: "Authentication required"}
)

// mechanism finds one by name. insecure says that it needs TLS, which is not there.
func (s *Session) mechanism(name string) (start func(*Session) Mechanism, insecure bool) {
	a := &s.srv.Auth
	if s.Mechanisms != nil && !slices.Contains(s.Mechanisms, name) {
		return nil, false
	}
	if m, ok := a.Mechanisms[name]; ok {
		return m, false
	}
	if a.Check == nil {
		return nil, false
	}
	insecure = s.TLS == nil && !a.AllowPlaintext
	switch name {
	case "PLAIN":
		return func(s *Session) Mechanism { return plainAuth{s} }, insecure
	case "LOGIN":
		return func(s *Session) Mechanism { return &loginAuth{s: s} }, insecure
	}
	return nil, false
}

// mechanisms are the names to announce, in order.
func (s *Session) mechanisms() (names []string) {
	all := slices.AppendSeq([]string{"LOGIN", "PLAIN"}, maps.Keys(s.srv.Auth.Mechanisms))
	slices.Sort(all)
	for _, name := range slices.Compact(all) {
		if start, insecure := s.mechanism(name); start != nil && !insecure {
			names = append(names, name)
		}
	}
	return names
}

func (a *Auth) offered() bool { return a.Check != nil || len(a.Mechanisms) > 0 }

// auth: RFC 4954 section 4.
func (s *Session) auth(ctx context.Context, arg []byte) Reply {
	words := strings.Fields(string(arg))
	switch {
	case s.Hello == "" && s.Mode == LMTP:
		return s.fault(replyLhloFirst)
	case s.Hello == "":
		return s.fault(replyEhloFirst)
	case s.Identity != nil:
		return s.fault(replyAuthTwice)
	case s.tx != nil:
		return s.fault(replyInMail)
	case len(words) == 0:
		return s.fault(replyAuthFew)
	case len(words) > 2:
		return s.fault(replyAuthMany)
	}
	name := strings.ToUpper(words[0])
	start, insecure := s.mechanism(name)
	switch {
	case start == nil:
		return s.fault(replyAuthUnknown)
	case insecure:
		return s.fault(replyAuthTLS)
	}
	var initial []byte
	if len(words) == 2 {
		var ok bool
		if initial, ok = decodeResponse(words[1]); !ok {
			return s.fault(replyAuthBase64)
		}
	}
	return s.authenticate(ctx, name, start(s), initial)
}

// decodeResponse decodes an initial response; "=" is an empty one, and not nil.
func decodeResponse(word string) ([]byte, bool) {
	if word == "=" {
		return []byte{}, true
	}
	b, err := base64.StdEncoding.DecodeString(word)
	return b, err == nil
}

// maxAuthSteps bounds a mechanism that never comes to an end.
const maxAuthSteps = 100

func (s *Session) authenticate(ctx context.Context, name string, m Mechanism, response []byte) Reply {
	for range maxAuthSteps {
		challenge, id, err := m.Next(ctx, response)
		var r Reply
		if err != nil && !(id != nil && errors.As(err, &r) && r.OK()) {
			return s.authFailed(ctx, err)
		}
		if id != nil {
			id.Mechanism = name
			s.Identity = id
			if r.Code != 0 {
				r.Code = replyAuthOK.Code
			}
			return r.or(replyAuthOK)
		}
		line, err := s.Prompt(ctx, Reply{Code: 334, Text: base64.StdEncoding.EncodeToString(challenge)})
		if err != nil {
			return replied // the session ends
		}
		if string(line) == "*" {
			return s.fault(replyAuthAborted)
		}
		response = make([]byte, base64.StdEncoding.DecodedLen(len(line)))
		n, err := base64.StdEncoding.Decode(response, line)
		if err != nil {
			return s.fault(replyAuthBase64)
		}
		response = response[:n]
	}
	return s.fault(replyAuthBad)
}

// authFailed makes a reply of an authenticator's error. A wrong password counts as an
// error of the client, so that guessing has an end.
func (s *Session) authFailed(ctx context.Context, err error) Reply {
	var r Reply
	switch {
	case errors.Is(err, ErrCredentials):
		return s.fault(replyAuthBad)
	case errors.As(err, &r) && !r.OK():
		return s.fault(r)
	}
	return call1(s.srv.Policy.Failure, ctx, s, err).or(replyAuthLater)
}

// Prompt sends a reply, of code 334 as a rule, and gives the line that the client
// answers with, without its line end; it is valid until the next read. It is for
// Verb.Serve and Mechanism.Next, in the session's goroutine. After an error the
// session ends when the command returns, whatever that returns.
func (s *Session) Prompt(_ context.Context, r Reply) ([]byte, error) {
	s.put(r)
	line, err := s.wire.line(func([]byte) int { return maxAuthLine }, s.wait)
	s.idle.busy()
	if err != nil {
		s.broken = err
		return nil, err
	}
	s.traceLine([]byte("***\r"))
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// Push sends a reply ahead of the one that the command will have, for a command that
// has several, as DATA has in LMTP; a client that does not expect it is out of step. It
// is for hooks and Verb.Serve, in the session's goroutine.
func (s *Session) Push(r Reply) { s.put(r.or(replyOK)) }

// maxAuthLine is the length of a line of an exchange, with its CR LF (RFC 4954
// section 4.5).
const maxAuthLine = 12288

type plainAuth struct{ s *Session }

func (p plainAuth) Next(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	if response == nil {
		return []byte{}, nil, nil
	}
	parts := strings.Split(string(response), "\x00")
	if len(parts) != 3 || parts[1] == "" {
		return nil, nil, replyAuthSplit
	}
	return check(ctx, p.s, "PLAIN", parts[0], parts[1], parts[2])
}

// loginAuth is LOGIN (draft-murchison-sasl-login), which some clients know alone.
type loginAuth struct {
	s     *Session
	asked int
	user  string
}

func (l *loginAuth) Next(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	prompts := &l.s.srv.Auth.LoginPrompts
	switch {
	case l.asked == 0 && response == nil:
		l.asked = 1
		return []byte(cmp.Or(prompts[0], "User Name\x00")), nil, nil
	case l.asked < 2:
		l.asked, l.user = 2, string(response)
		return []byte(cmp.Or(prompts[1], "Password\x00")), nil, nil
	}
	return check(ctx, l.s, "LOGIN", "", l.user, string(response))
}

func check(ctx context.Context, s *Session, mechanism, authzid, user, password string) ([]byte, *Identity, error) {
	id, err := s.srv.Auth.Check.Authenticate(ctx, s, mechanism, authzid, user, password)
	if id == nil && err == nil {
		err = ErrCredentials
	}
	return nil, id, err
}
