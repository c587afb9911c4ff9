package protocol_test

import (
	"context"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// A hook gives each peer limits and mechanisms of its own.
func TestLimitsByPeer(t *testing.T) {
	srv := protocoltest.NewUnstartedServer(protocol.SMTP, nil)
	srv.Config.Auth = protocol.Auth{
		AllowPlaintext: true,
		Check: protocol.AuthenticatorFunc(func(context.Context, *protocol.Session, string, string, string, string) (*protocol.Identity, error) {
			return &protocol.Identity{}, nil
		}),
	}
	srv.Config.Policy.Hello = func(_ context.Context, s *protocol.Session, name string) protocol.Reply {
		if name == "small.example.org" {
			s.MessageSize, s.Mechanisms = 10, []string{"PLAIN"}
		}
		return protocol.Reply{}
	}
	srv.Start()
	defer srv.Close()

	c := srv.Dial(t)
	c.Expect("220")
	if r := c.Cmd("250", "EHLO large.example.org"); !strings.Contains(r, "SIZE 33554432\r\n") || !strings.Contains(r, "AUTH LOGIN PLAIN\r\n") {
		t.Errorf("large: %q", r)
	}
	if r := c.Send("", []string{"bob@example.org"}, "0123456789\r\n", 1); !strings.HasPrefix(r[0], "250") {
		t.Errorf("large: %q", r)
	}

	c = srv.Dial(t)
	c.Expect("220")
	if r := c.Cmd("250", "EHLO small.example.org"); !strings.Contains(r, "SIZE 10\r\n") || !strings.Contains(r, "AUTH PLAIN\r\n") {
		t.Errorf("small: %q", r)
	}
	c.Cmd("504", "AUTH LOGIN")
	c.Cmd("552 5.3.4", "MAIL FROM:<> SIZE=11")
	if r := c.Send("", []string{"bob@example.org"}, "0123456789\r\n", 1); !strings.HasPrefix(r[0], "552 5.3.4") {
		t.Errorf("small: %q", r)
	}
	c.Cmd("221", "QUIT")
}

// Long local parts are taken unless the program says otherwise.
func TestLocalPartLimit(t *testing.T) {
	srv := protocoltest.NewUnstartedServer(protocol.SMTP, nil)
	srv.Config.Limits.LocalPart = 8
	srv.Start()
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("EHLO")
	c.Cmd("501 5.1.7", "MAIL FROM:<123456789@example.org>")
	c.Cmd("250", "MAIL FROM:<12345678@example.org>")
	c.Cmd("501 5.1.3", "RCPT TO:<123456789@example.org>")
	c.Cmd("250", "RCPT TO:<12345678@example.org>")
}
