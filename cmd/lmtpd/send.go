package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func sendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send --to SOCKET RECIPIENT...",
		Short: "send one message from standard input to an LMTP or SMTP server",
		Long: "Send one message from standard input to a server on a Unix socket or TCP port, and\nprint each reply. SOCKET is unix:/path, /path or tcp:HOST:PORT. LMTP is tried first and\n" +
			"SMTP where the server does not know it. Exit code 0: every recipient was accepted; 75: at\nleast one may be tried again; 69: refused for good.",
		Args: cobra.MinimumNArgs(1),
	}
	to := cmd.Flags().String("to", "", "`SOCKET` of the server")
	from := cmd.Flags().StringP("from", "f", "", "reverse-path `SENDER`; without it, or with <>, the null one")
	cmd.MarkFlagRequired("to")
	cmd.RunE = func(cmd *cobra.Command, rcpts []string) error {
		path := *to
		if !strings.Contains(path, ":") {
			if abs, err := filepath.Abs(path); err == nil {
				path = abs // a command line may name a socket from where it stands
			}
		}
		addr, err := parseSocketAddress(path)
		if err != nil {
			return &exitError{exitUsage, "--to: " + err.Error()}
		}
		ctx, stop := untilInterrupted()
		defer stop()
		c, err := dialMail(ctx, addr, cmd.OutOrStdout())
		if err != nil {
			return &exitError{exitTemporary, err.Error()}
		}
		defer c.text.Close()
		return c.send(trimBrackets(*from), rcpts, cmd.InOrStdin())
	}
	return cmd
}

// mailClient is one session as a client. net/textproto does the lines; what it
// adds is that every reply is shown, by recipient and in order, which is what the
// command is for.
type mailClient struct {
	text       *textproto.Conn
	out        io.Writer
	lmtp       bool
	extensions string // the EHLO reply, in upper case
}

// replyPatience is longer than any server's own limit (RFC 5321 section 4.5.3.2).
const replyPatience = 10 * time.Minute

// dialMail connects and greets. A server that refuses LHLO gets EHLO.
func dialMail(ctx context.Context, addr socketAddress, out io.Writer) (*mailClient, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, addr.Network, addr.Address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is the server running, and may this user write to its socket?", addr, errnoOf(err))
	}
	conn.SetDeadline(time.Now().Add(replyPatience))
	context.AfterFunc(ctx, func() { conn.Close() })
	c := &mailClient{text: textproto.NewConn(conn), out: out}
	if _, err := c.reply("greeting", 220); err != nil {
		c.text.Close()
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil || checkHostname(name) != nil {
		name = "localhost"
	}
	text, err := c.command(250, "LHLO %s", name)
	c.lmtp = err == nil
	var refused *textproto.Error
	if errors.As(err, &refused) && refused.Code/100 == 5 {
		text, err = c.command(250, "EHLO %s", name)
	}
	if err != nil {
		c.text.Close()
		return nil, err
	}
	c.extensions = strings.ToUpper(text)
	return c, nil
}

// send carries out one transaction.
func (c *mailClient) send(from string, rcpts []string, body io.Reader) error {
	params := ""
	if c.has("8BITMIME") {
		params += " BODY=8BITMIME"
	}
	if c.has("SMTPUTF8") && !isASCII(from+strings.Join(rcpts, "")) {
		params += " SMTPUTF8"
	}
	if _, err := c.command(250, "MAIL FROM:<%s>%s", from, params); err != nil {
		return c.failed(err)
	}
	var accepted []string
	var worst error
	for _, r := range rcpts {
		if _, err := c.command(25, "RCPT TO:<%s>", trimBrackets(r)); err != nil {
			worst = worse(worst, err)
			continue
		}
		accepted = append(accepted, r)
	}
	if len(accepted) == 0 {
		c.command(250, "RSET")
		c.command(221, "QUIT")
		return c.failed(worst)
	}
	if _, err := c.command(354, "DATA"); err != nil {
		return c.failed(err)
	}
	w := c.text.DotWriter()
	if _, err := io.Copy(w, body); err != nil {
		return c.failed(err) // the connection is closed without the final dot: nothing is sent
	}
	if err := w.Close(); err != nil {
		return c.failed(err)
	}
	answers := accepted
	if !c.lmtp {
		answers = []string{"message"}
	}
	for _, a := range answers {
		if _, err := c.reply(a, 250); err != nil {
			worst = worse(worst, err)
		}
	}
	c.command(221, "QUIT")
	return c.failed(worst)
}

func (c *mailClient) has(extension string) bool {
	for _, line := range strings.Split(c.extensions, "\n")[1:] {
		if word, _, _ := strings.Cut(line, " "); word == extension {
			return true
		}
	}
	return false
}

// command sends a line and reads its reply; expect is a code or its first digits.
func (c *mailClient) command(expect int, format string, a ...any) (string, error) {
	line := fmt.Sprintf(format, a...)
	if strings.ContainsAny(line, "\r\n") {
		return "", &exitError{exitUsage, fmt.Sprintf("%q has a line end in it", line)}
	}
	if err := c.text.PrintfLine("%s", line); err != nil {
		return "", err
	}
	return c.reply(line, expect)
}

// reply reads a reply and prints it behind what it answers.
func (c *mailClient) reply(what string, expect int) (string, error) {
	code, text, err := c.text.ReadResponse(expect)
	if code > 0 {
		for _, line := range strings.Split(text, "\n") {
			fmt.Fprintf(c.out, "%-32s  %d %s\n", what, code, line)
			what = ""
		}
	}
	return text, err
}

// worse keeps the error that decides about the exit code: one that may pass.
func worse(a, b error) error {
	var refused *textproto.Error
	if a == nil || !errors.As(b, &refused) || refused.Code/100 == 4 {
		return b
	}
	return a
}

// failed is the exit of the command for its worst error; a reply has been printed.
func (c *mailClient) failed(err error) error {
	var refused *textproto.Error
	var exit *exitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		return exit
	case errors.As(err, &refused) && refused.Code/100 == 5:
		return &exitError{code: exitUnavailable}
	case errors.As(err, &refused):
		return &exitError{code: exitTemporary}
	}
	return &exitError{exitTemporary, "connection lost: " + err.Error()}
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
