package protocol_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/mail"
	"net/smtp"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// chat sends command lines to a server over a pipe and prints its replies: a client to
// look at examples with.
func chat(srv *protocol.Server, lines ...string) {
	client, server := net.Pipe()
	go srv.ServeConn(context.Background(), server)
	c := protocoltest.NewClient(new(testing.T), client)
	fmt.Println(strings.ReplaceAll(c.Reply(), "\r\n", "\n"))
	for _, line := range lines {
		c.Raw(line + "\r\n")
		fmt.Println(strings.ReplaceAll(c.Reply(), "\r\n", "\n"))
	}
	client.Close()
}

// A message is read while it arrives, and each recipient has a reply of its own.
func ExampleServer() {
	srv := &protocol.Server{
		Mode:     protocol.LMTP,
		Hostname: "mx.example.org",
		Handler: protocol.HandlerFunc(func(_ context.Context, tx *protocol.Transaction, body *protocol.Body) error {
			content, err := io.ReadAll(body)
			if err != nil {
				return err // the message is not complete: nothing may be kept of it
			}
			fmt.Printf("%d octets from <%s>\n", len(content), tx.From)
			for i, rcpt := range tx.Rcpts {
				if rcpt.Path.Local == "full" {
					tx.Settle(i, protocol.Replyf(452, protocol.Enhanced{4, 2, 2}, "Mailbox full"))
				}
			}
			return nil // 250 for the others
		}),
	}
	chat(srv, "LHLO client", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.org>", "DATA", "Subject: hello\r\n\r\nHello.\r\n.")
	// Output:
	// 220 mx.example.org LMTP lmtpd
	// 250-mx.example.org
	// 250-SIZE 33554432
	// 250-8BITMIME
	// 250-SMTPUTF8
	// 250-ENHANCEDSTATUSCODES
	// 250-PIPELINING
	// 250-CHUNKING
	// 250-BINARYMIME
	// 250-LIMITS RCPTMAX=1000
	// 250 HELP
	// 250 2.1.0 OK
	// 250 2.1.5 OK
	// 354 End data with <CR><LF>.<CR><LF>
	// 26 octets from <ann@example.org>
	// 250 2.0.0 OK
}

// A hook sees each HELO.
func ExamplePolicy_count() {
	hellos := 0
	srv := &protocol.Server{Hostname: "mx.example.org", Policy: protocol.Policy{
		Hello: func(context.Context, *protocol.Session, string) protocol.Reply {
			hellos++
			return protocol.Reply{}
		},
	}}
	chat(srv, "HELO one", "HELO two")
	fmt.Printf("We saw %d HELOs\n", hellos)
	// Output:
	// 220 mx.example.org SMTP lmtpd
	// 250 mx.example.org
	// 250 mx.example.org
	// We saw 2 HELOs
}

// A policy refuses, and the client may try something else.
func ExamplePolicy() {
	srv := &protocol.Server{Hostname: "mx.example.org", Policy: protocol.Policy{
		Hello: func(_ context.Context, _ *protocol.Session, name string) protocol.Reply {
			if name == "evil.example" {
				return protocol.Reply{Code: 553, Text: "Bad helo string\nEvil IP"}
			}
			return protocol.Reply{}
		},
		Rcpt: func(_ context.Context, _ *protocol.Transaction, rcpt *protocol.Recipient) protocol.Reply {
			if rcpt.Path.Domain != "example.org" {
				return protocol.Replyf(550, protocol.Enhanced{5, 7, 1}, "relay not permitted")
			}
			return protocol.Reply{}
		},
	}}
	chat(srv, "HELO evil.example", "HELO client", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.com>", "RCPT TO:<bob@example.org>")
	// Output:
	// 220 mx.example.org SMTP lmtpd
	// 553-Bad helo string
	// 553 Evil IP
	// 250 mx.example.org
	// 250 2.1.0 OK
	// 550 5.7.1 relay not permitted
	// 250 2.1.5 OK
}

// A command of one's own.
func ExampleVerb() {
	clock := func() time.Time { return time.Date(2017, 5, 16, 12, 5, 5, 0, time.FixedZone("PDT", -7*60*60)) }
	srv := &protocol.Server{Hostname: "presto", Verbs: map[string]protocol.Verb{
		"NOW": {Syntax: "NOW [UTC]", Serve: func(_ context.Context, _ *protocol.Session, arg string) protocol.Reply {
			now := clock()
			switch arg {
			case "":
			case "UTC":
				now = now.UTC()
			default:
				return protocol.Reply{Code: 501, Text: "Syntax: NOW [UTC]"}
			}
			return protocol.Reply{Code: 250, Text: now.Format(time.DateTime)}
		}},
	}}
	chat(srv, "NOW", "NOW UTC", "NOW AND THEN", "HELP NOW", "QUIT")
	// Output:
	// 220 presto SMTP lmtpd
	// 250 2.0.0 2017-05-16 12:05:05
	// 250 2.0.0 2017-05-16 19:05:05
	// 501 5.5.4 Syntax: NOW [UTC]
	// 214 2.0.0 Syntax: NOW [UTC]
	// 221 2.0.0 Bye
}

// Names and passwords are checked by a function; PLAIN and LOGIN come with it.
func ExampleAuthenticatorFunc() {
	srv := &protocol.Server{Hostname: "mx.example.org", Auth: protocol.Auth{
		Check: protocol.AuthenticatorFunc(func(_ context.Context, _ *protocol.Session, _, _, user, password string) (*protocol.Identity, error) {
			if user == "joe" && password == "secret" {
				return &protocol.Identity{User: user}, nil
			}
			return nil, protocol.ErrCredentials
		}),
		Required:       true,
		AllowPlaintext: true, // for the example: without it, only after STARTTLS
	}}
	chat(srv, "EHLO client", "MAIL FROM:<joe@example.org>", "AUTH PLAIN AGpvZQB3cm9uZw==", "AUTH PLAIN AGpvZQBzZWNyZXQ=", "MAIL FROM:<joe@example.org>")
	// Output:
	// 220 mx.example.org SMTP lmtpd
	// 250-mx.example.org
	// 250-SIZE 33554432
	// 250-8BITMIME
	// 250-SMTPUTF8
	// 250-ENHANCEDSTATUSCODES
	// 250-PIPELINING
	// 250-CHUNKING
	// 250-BINARYMIME
	// 250-LIMITS RCPTMAX=1000
	// 250-AUTH LOGIN PLAIN
	// 250 HELP
	// 530 5.7.0 Authentication required
	// 535 5.7.8 Authentication credentials invalid
	// 235 2.7.0 Authentication successful
	// 250 2.1.0 OK
}

// The custom server of "Python Module of the Week", with Go's own client.
func ExampleText() {
	srv := protocoltest.NewServer(protocol.Text(func(_ context.Context, text string, tx *protocol.Transaction) error {
		fmt.Println("Receiving message from:", tx.Session.ClientAddr())
		fmt.Println("Message addressed from:", tx.From)
		fmt.Println("Message addressed to  :", tx.Rcpts[0].Path)
		fmt.Println("Message length        :", len(text))
		return nil
	}))
	defer srv.Close()
	if err := smtp.SendMail(srv.Addr, nil, "author@example.com", []string{"recipient@example.com"}, []byte(simpleMessage)); err != nil {
		fmt.Println(err)
	}
	// Output:
	// Receiving message from: 127.0.0.1
	// Message addressed from: author@example.com
	// Message addressed to  : recipient@example.com
	// Message length        : 229
}

// What a program sends is parsed and looked at.
func ExampleParsed() {
	srv := protocoltest.NewServer(protocol.Parsed(func(_ context.Context, m *mail.Message, _ *protocol.Transaction) error {
		text, err := io.ReadAll(m.Body)
		if err != nil {
			return err
		}
		fmt.Printf("%s from %s: %s", m.Header.Get("Subject"), m.Header.Get("X-MailFrom"), strings.TrimSpace(string(text)))
		return nil
	}))
	defer srv.Close()
	smtp.SendMail(srv.Addr, nil, "ann@example.org", []string{"bob@example.org"}, []byte("Subject: hello\r\n\r\nHow are you?\r\n"))
	// Output:
	// hello from ann@example.org: How are you?
}
