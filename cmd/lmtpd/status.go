package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show what the running daemon is doing",
		Long: "Ask the running daemon over its status socket what it is doing: sessions, rates, user\ndatabases, the slowest mailboxes and the last failures. Exit code 0: it answered; 69: no\n" +
			"daemon is running, or this user may not ask it.",
		Args: cobra.NoArgs,
	}
	daemon := daemonFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print one line of JSON for programs")
	watch := cmd.Flags().BoolP("watch", "w", false, "show it again every two seconds until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		addr, err := daemon()
		if err != nil {
			return err
		}
		ctx, stop := untilInterrupted()
		defer stop()
		s := &statusScreen{out: cmd.OutOrStdout(), addr: addr, asJSON: *asJSON}
		if !*watch {
			return s.once(ctx)
		}
		s.clear = !*asJSON && isTerminal(s.out)
		ticker := time.NewTicker(2 * time.Second)
		defer ticker.Stop()
		return s.watch(ctx, ticker.C)
	}
	return cmd
}

// statusScreen shows the status of one daemon.
type statusScreen struct {
	out    io.Writer
	addr   socketAddress
	asJSON bool
	clear  bool // the terminal, before each screen
}

func (s *statusScreen) once(ctx context.Context) error {
	r, err := fetchStatus(ctx, s.addr)
	if err != nil {
		return err
	}
	return s.show(r)
}

// watch shows it at once and at each tick, until ctx is done. A daemon that is being
// restarted does not end it.
func (s *statusScreen) watch(ctx context.Context, ticks <-chan time.Time) error {
	for first := true; ; first = false {
		r, err := fetchStatus(ctx, s.addr)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			s.wipe()
			_, err = fmt.Fprintln(s.out, err)
		default:
			s.wipe()
			err = s.show(r)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks:
		}
	}
}

func (s *statusScreen) wipe() {
	if s.clear {
		fmt.Fprint(s.out, "\x1b[H\x1b[2J\x1b[3J")
	}
}

func (s *statusScreen) show(r *statusReport) error {
	if s.asJSON {
		return json.NewEncoder(escapeWriter{s.out}).Encode(r)
	}
	_, err := io.WriteString(s.out, r.String())
	return err
}

// maxStatus bounds what is read of an answer, in octets.
const maxStatus = 1 << 20

// fetchStatus asks the daemon at addr. Errors are *exitError.
func fetchStatus(ctx context.Context, addr socketAddress) (*statusReport, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := askDaemon(ctx, addr, "/status")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var r statusReport
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&r); err != nil {
		return nil, &exitError{exitUnavailable, fmt.Sprintf("%s does not answer as lmtpd does: %v", addr.Address, err)}
	}
	return &r, nil
}

// isTerminal reports whether w is a character device such as a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
