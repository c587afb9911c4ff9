// Package pipe is the transport that gives each message to a program, which answers for
// it with its exit status (sysexits.h). The program runs under one account, never that of
// the recipient: see package command for what else holds.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/protocol"
)

// Pipe is a delivery.Transport. Its fields must not change after the first delivery; its
// methods are safe for concurrent use.
//
// The program gets the message on standard input, with Return-Path, Delivered-To and
// Received before it, and lines that end as in mailboxes. One that ends with status 0
// has taken it, whether it has read all of it or not.
type Pipe struct {
	// Command is the program, by its absolute path, and its arguments, with Values in
	// braces: see command.Expand.
	Command []string
	// Runner runs it; its Timeout bounds one run with the wait for its turn.
	Runner *command.Runner
	// Log hears what a program says that ends well; nil: slog.Default.
	Log *slog.Logger
}

// Values are the names that stand in braces in a Command: reverse-path, recipient and the
// parts that the rules for addresses find in it, the user's name, the address that the
// sender wrote ("" if not known), octets, our name and the client's name for the message.
var Values = []string{"sender", "recipient", "local", "detail", "domain", "user", "original_recipient", "size", "id", "queue_id"}

func values(p *delivery.Parcel, r *delivery.ParcelRcpt) map[string]string {
	return map[string]string{
		"sender": p.From, "recipient": r.Address, "local": r.Parts.Local, "detail": r.Parts.Detail, "domain": r.Parts.Domain,
		"user": r.User, "original_recipient": r.ORcpt, "size": strconv.FormatInt(p.Size, 10), "id": p.ID, "queue_id": p.QueueID,
	}
}

// FinalDelivery implements delivery.PerRecipient.
func (*Pipe) FinalDelivery() {}

// Deliver implements delivery.Transport.
func (t *Pipe) Deliver(ctx context.Context, p *delivery.Parcel, done func(int, delivery.Handover)) {
	for i := range p.Rcpts {
		done(i, t.run(ctx, p, &p.Rcpts[i]))
	}
}

func (t *Pipe) run(ctx context.Context, p *delivery.Parcel, r *delivery.ParcelRcpt) delivery.Handover {
	h := delivery.Handover{Target: t.Command[0]}
	argv, err := command.Expand(t.Command, values(p, r))
	if err != nil {
		if errors.Is(err, command.ErrOption) {
			err = fmt.Errorf(`%w; put "--" before it in the command if the program knows that, or text such as "--to="`, err)
		}
		h.Err = fmt.Errorf("%w: %s: %w", delivery.ErrMisconfigured, h.Target, err)
		return h
	}
	res, err := t.Runner.Run(ctx, argv, p.Open())
	said := oneLine(res.Output)
	switch {
	case errors.Is(err, command.ErrTimeout):
		h.Err = fmt.Errorf("%w: %w%s", delivery.ErrSlow, err, quoted(said))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, command.ErrRoot):
		h.Err = fmt.Errorf("%w: %w", delivery.ErrMisconfigured, err)
	case err != nil:
		h.Err = err
	case res.Status == 0:
		if said != "" {
			log := t.Log
			if log == nil {
				log = slog.Default()
			}
			log.Info("program said", "id", p.ID, "to", r.Address, "program", h.Target, "text", said)
		}
	default:
		s := statusOf(res.Status)
		h.Reply = s.reply(res.Output)
		h.Err = fmt.Errorf("%s: %s%s", h.Target, s.describe(res.Status), quoted(said))
	}
	return h
}

func quoted(said string) string {
	if said == "" {
		return ""
	}
	return fmt.Sprintf("; it said %q", said)
}

// maxSaid is how much of a program's output goes to log and replies, in octets.
const maxSaid = 500

// oneLine makes what a program says fit for a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(printable(strings.ToValidUTF8(s, "?"))), " ")
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "..."
	}
	return s
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == utf8.RuneError:
			return '?'
		}
		return c
	}, s)
}

// statusText cuts the first line off what a program said, and the status code of RFC 3463
// that may stand before it, if its class is that of the reply.
func statusText(output string, class uint16) (e protocol.Enhanced, text string) {
	line, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	line = oneLine(line)
	word, rest, _ := strings.Cut(line, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(int(class)) {
		return e, line
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 16)
		if err != nil || n > 999 || part[0] == '+' {
			return protocol.Enhanced{}, line
		}
		e[i] = uint16(n)
	}
	return e, rest
}
