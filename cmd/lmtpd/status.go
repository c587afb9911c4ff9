package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
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
	path := configFlag(cmd)
	at := cmd.Flags().String("socket", "", "`PATH` of the daemon's socket (default: status.socket of the configuration)")
	asJSON := cmd.Flags().Bool("json", false, "print one line of JSON for programs")
	watch := cmd.Flags().BoolP("watch", "w", false, "show it again every two seconds until Ctrl-C")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		addr, err := statusSocket(*at, *path)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
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

// statusSocket is where the daemon listens. A configuration that cannot be read does
// not matter where the default is right.
func statusSocket(at, config string) (socketAddress, error) {
	if at != "" {
		addr, err := parseSocketAddress(at)
		if err == nil && addr.Network != "unix" {
			err = &valueError{quoted(at) + " is no Unix socket", "write its path"}
		}
		if err != nil {
			return addr, &exitError{exitUsage, "--socket: " + err.Error()}
		}
		return addr, nil
	}
	addr := defaultConfig().Status.Socket.socketAddress
	if c, err := loadConfig(config); err == nil {
		if addr = c.Status.Socket.socketAddress; addr.Network == "" {
			return addr, &exitError{exitUnavailable, "status.socket is \"\" in " + config + ": this daemon cannot be asked"}
		}
	}
	return addr, nil
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

// notRunning says what a failed connection means.
func notRunning(path string, err error) error {
	text := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = "no daemon is running here: there is no " + path + "; start it (systemctl start lmtpd), or name its status.socket with --socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "no daemon is running here: nobody listens on " + path + " any more; see why it ended (journalctl -u lmtpd)"
	case errors.Is(err, fs.ErrPermission):
		text = fmt.Sprintf("uid %d may not connect to %s; run this as root or as the daemon's user, or let a group in with status.group and status.mode", os.Geteuid(), path)
	default:
		text = fmt.Sprintf("%s: no answer: %v", path, errnoOf(err))
	}
	return &exitError{exitUnavailable, text}
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
