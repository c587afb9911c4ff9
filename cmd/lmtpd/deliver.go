package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery"
)

func deliverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deliver RECIPIENT...",
		Short: "deliver one message from standard input",
		Long: "Deliver one message from standard input to the mailboxes of its recipients, in this\nprocess, as Postfix's pipe(8) and .forward files call a delivery agent. The exit code is\n" +
			"one of sysexits: 0 all delivered, 67 no such user, 75 try again (if that\nholds for any recipient), 65 and 69 other permanent failures, 78 bad configuration.",
		Args: cobra.MinimumNArgs(1),
	}
	path := configFlag(cmd)
	from := cmd.Flags().StringP("from", "f", "", "reverse-path `SENDER`; without it, or with <>, the null one")
	verbose := cmd.Flags().BoolP("verbose", "v", false, "log the outcome of each recipient to standard error")
	cmd.RunE = func(cmd *cobra.Command, rcpts []string) error {
		c, agent, err := loadAgent(*path, func(c *config) *slog.Logger {
			// What a delivery command prints ends up in a bounce: causes with their
			// paths are not for the sender.
			if !*verbose {
				return slog.New(slog.DiscardHandler)
			}
			return newLogger(cmd.ErrOrStderr(), c.Log, true)
		})
		if err != nil {
			return err
		}
		if checkWritable(c.StateDirectory, "") != nil {
			// A user's .forward has called: the directory is the daemon's alone.
			agent.Spool.Memory = math.MaxInt64
		}
		ctx, stop := untilInterrupted()
		defer stop()
		env := delivery.Envelope{From: trimBrackets(*from), Rcpts: rcpts, By: fmt.Sprintf("userid %d", os.Getuid())}
		return deliver(ctx, agent, env, limitBody(cmd.InOrStdin(), int64(c.Limits.MessageSize)), cmd.ErrOrStderr())
	}
	return cmd
}

// deliver prints a line for each recipient that failed, its status code first as
// pipe(8) wants it.
func deliver(ctx context.Context, agent *delivery.Agent, env delivery.Envelope, body io.Reader, out io.Writer) error {
	outcomes, err := agent.Submit(ctx, env, body)
	agent.Wait()
	switch {
	case errors.Is(err, errBodyTooBig):
		fmt.Fprintln(out, "5.3.4 message is larger than limits.message_size allows")
		return &exitError{code: exitData}
	case err != nil:
		fmt.Fprintln(out, "4.3.0 the message could not be read or kept")
		return &exitError{code: exitTemporary}
	}
	code := exitOK
	for _, o := range outcomes {
		if !o.Reply.OK() {
			fmt.Fprintf(out, "%s <%s>: %s\n", o.Reply.Enhanced, o.To, o.Reply.Text)
		}
		// One code stands for all. A temporary failure makes the MTA try all of
		// them again, so it is said only where there is one.
		if c := exitCode(o); code == exitOK || c == exitTemporary {
			code = c
		}
	}
	if code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

func exitCode(o delivery.Outcome) int {
	switch {
	case o.Reply.OK():
		return exitOK
	case o.Reply.Temporary():
		return exitTemporary
	case o.Reply.Code == 501:
		return exitData
	case o.Reply.Enhanced[1] == 1:
		return exitNoUser
	}
	return exitUnavailable
}

var errBodyTooBig = errors.New("message too big")

// limitBody makes a body that is too big an error, not a shorter message. 0 is no limit.
func limitBody(r io.Reader, limit int64) io.Reader {
	if limit <= 0 {
		return r
	}
	return &limitedBody{r, limit}
}

type limitedBody struct {
	r    io.Reader
	left int64
}

func (l *limitedBody) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errBodyTooBig
	}
	return n, err
}

func trimBrackets(s string) string {
	if len(s) >= 2 && s[0] == '<' && s[len(s)-1] == '>' {
		return s[1 : len(s)-1]
	}
	return s
}
