package protocol_test

import (
	"context"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// TestPrompt: a verb of the program asks back; a shutdown ends the question.
func TestPrompt(t *testing.T) {
	answers := make(chan string, 2)
	srv := start(t, func(s *protocol.Server) {
		s.Verbs = map[string]protocol.Verb{"XASK": {Serve: func(ctx context.Context, s *protocol.Session, arg string) protocol.Reply {
			answer, err := s.Prompt(ctx, protocol.Replyf(334, protocol.Enhanced{}, "%s?", arg))
			if err != nil {
				answers <- "none"
				return protocol.Replyf(250, protocol.Enhanced{}, "never sent")
			}
			answers <- string(answer)
			return protocol.Replyf(250, protocol.Enhanced{}, "thanks")
		}}}
	})
	c := srv.Dial(t)
	c.Hello("LHLO")
	c.Cmd("334 name?", "XASK name")
	c.Cmd("250 2.0.0 thanks", "joe")
	if a := <-answers; a != "joe" {
		t.Errorf("answer %q", a)
	}
	c.Cmd("334 name?", "XASK name")
	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if a := <-answers; a != "none" {
		t.Errorf("answer %q", a)
	}
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}

// TestAuthWithinTLS: PLAIN is refused before TLS and taken within it.
func TestAuthWithinTLS(t *testing.T) {
	rec := protocoltest.NewRecorder()
	srv := secured(t, rec, func(s *protocol.Server) {
		s.Auth.Check = protocol.AuthenticatorFunc(func(_ context.Context, _ *protocol.Session, _, _, user, password string) (*protocol.Identity, error) {
			if user == "joe" && password == "secret" {
				return &protocol.Identity{User: user}, nil
			}
			return nil, protocol.ErrCredentials
		})
	})
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Cmd("538 5.7.11", "AUTH PLAIN AGpvZQBzZWNyZXQ=")
	c.Cmd("220", "STARTTLS")
	c.Secure(srv.ClientTLS())
	c.Cmd("250", "EHLO client.example.org")
	c.Cmd("235 2.7.0", "AUTH PLAIN AGpvZQBzZWNyZXQ=")
	c.Send("a@example.org", []string{"b@example.org"}, "x\r\n", 1)
	if m := rec.Messages(); len(m) != 1 || m[0].With != "ESMTPSA" {
		t.Errorf("messages %+v", m)
	}
}
