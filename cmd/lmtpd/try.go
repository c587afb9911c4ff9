package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/userdb"
)

// defaultTrySMTP is where `lmtpd try` listens for SMTP unless told otherwise.
const defaultTrySMTP = "127.0.0.1:2525"

func tryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "try",
		Short: "run without configuration: every address gets a mailbox",
		Long: "Run a server to look at, without configuration, root or preparation: LMTP on\nDIR/lmtp.sock, SMTP on 127.0.0.1:2525. Every address gets a Maildir,\n" +
			"DIR/mail/<domain>/<user>, and each delivery prints a line. Messages are kept when it ends.",
		Args: cobra.NoArgs,
	}
	dir := cmd.Flags().String("dir", "", "`DIR` for the socket and the mail (default ./lmtpd-try)")
	smtp := cmd.Flags().String("smtp", defaultTrySMTP, "`HOST:PORT` for SMTP; port 0: any free one; empty: no SMTP")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		signals := make(chan os.Signal, 4)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		defer signal.Stop(signals)
		t := &trial{out: cmd.OutOrStdout(), log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))}
		if err := t.start(*dir, *smtp, !cmd.Flags().Changed("smtp")); err != nil {
			return err
		}
		return t.wait(signals)
	}
	return cmd
}

// trial is `lmtpd try` while it runs.
type trial struct {
	out io.Writer
	log *slog.Logger

	mu sync.Mutex // guards out
	d  daemon
}

// start sets everything up and tells the user about it. anyPort allows another
// port where the one for SMTP is taken.
func (t *trial) start(dir, smtp string, anyPort bool) error {
	dir, err := tryDirectory(dir)
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	c := tryConfig(dir)
	if smtp != "" {
		addr, err := freeAddress(smtp, anyPort)
		if err != nil {
			return &exitError{exitUsage, err.Error()}
		}
		c.Listen = append(c.Listen, listenConfig{Name: "smtp", Protocol: protoSMTP, Address: addr})
	}
	t.d = daemon{log: t.log, listeners: newListeners(nil, t.log), notify: &notifier{t.log}}
	agent, err := buildAgent(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	agent.Users = userdb.Any{}
	agent.Report = t.report
	if err := t.d.startAgent(c, agent); err != nil {
		t.d.listeners.close()
		return &exitError{exitConfig, err.Error()}
	}
	t.greet(dir)
	t.d.notify.ready("trying in " + dir)
	return nil
}

// tryConfig is what `lmtpd try` serves, with the defaults of an empty file.
func tryConfig(dir string) *config {
	c, err := parseConfig("(built in)", nil)
	if err != nil {
		panic(err) // an empty file is always right
	}
	c.StateDirectory = dir
	c.Mailbox.Path = filepath.Join(strings.ReplaceAll(dir, "%", "%%"), "mail", "%d", "%n")
	c.Listen = []listenConfig{{
		Name: "lmtp", Protocol: protoLMTP, Mode: 0o600,
		Address: socketAddress{Network: "unix", Address: filepath.Join(dir, "lmtp.sock")},
	}}
	return c
}

// tryDirectory makes the directory. Where none was named and the current one is
// no place for it, a new temporary directory serves.
func tryDirectory(dir string) (string, error) {
	named := dir != ""
	if !named {
		dir = "lmtpd-try"
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = makeTryDirectory(dir)
	}
	if err != nil && !named {
		if dir, err = os.MkdirTemp("", "lmtpd-try-"); err == nil {
			err = makeTryDirectory(dir)
		}
	}
	if err != nil {
		return "", fmt.Errorf("%w; name a directory that can be written with --dir DIR", err)
	}
	return dir, nil
}

func makeTryDirectory(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o700); err != nil {
		return err
	}
	if _, err := parseSocketAddress(filepath.Join(dir, "lmtp.sock")); err != nil {
		return err
	}
	return checkWritable(dir, "the socket and the mail")
}

// freeAddress is the address for SMTP. One that was not asked for by name, and is
// taken, is exchanged for a free port.
func freeAddress(hostPort string, anyPort bool) (socketAddress, error) {
	addr, err := parseSocketAddress("tcp:" + hostPort)
	if err != nil {
		return addr, fmt.Errorf("--smtp: %w", err)
	}
	l, err := net.Listen(addr.Network, addr.Address)
	if errors.Is(err, syscall.EADDRINUSE) && anyPort {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return addr, fmt.Errorf("--smtp %s: %w; name another port, or leave SMTP out with --smtp \"\"", hostPort, errnoOf(err))
	}
	defer l.Close()
	return socketAddress{Network: "tcp", Address: l.Addr().String()}, nil
}

func (t *trial) greet(dir string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	self := ownCommand()
	sock := filepath.Join(dir, "lmtp.sock")
	fmt.Fprintf(t.out, "lmtpd is listening; every address has a mailbox. Ctrl-C ends it.\n\n")
	for _, b := range t.d.current.bounds {
		fmt.Fprintf(t.out, "  %-5s %s\n", strings.ToUpper(string(b.Protocol)), strings.TrimPrefix(strings.TrimPrefix(b.Address, "unix:"), "tcp:"))
	}
	fmt.Fprintf(t.out, "  %-5s %s/mail/<domain>/<user>\n\n", "mail", dir)
	fmt.Fprintf(t.out, "Send a message from another terminal:\n\n  printf 'Subject: hello\\n\\nIt works.\\n' | %s send --to %s -f ann@example.org bob@example.org\n\n", self, shellWord(sock))
}

// ownCommand is how the user would call this program again.
func ownCommand() string {
	if exe, err := os.Executable(); err == nil && strings.Contains(exe, "/go-build") {
		return "go run ./cmd/lmtpd"
	}
	return shellWord(os.Args[0])
}

// shellWord quotes s for a POSIX shell where it has to be.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// report prints one line for each recipient.
func (t *trial) report(o delivery.Outcome) {
	t.d.counts.add(o)
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.Reply.OK() {
		fmt.Fprintf(t.out, "%-9s  %s  from <%s>  %d octets  %s\n", o.Status(), o.To, o.From, o.Size, o.File)
		return
	}
	fmt.Fprintf(t.out, "%-9s  %s  from <%s>  %s  (%v)\n", o.Status(), o.To, o.From, o.Reply.Error(), o.Err)
}

// wait serves until a signal, and drains.
func (t *trial) wait(signals <-chan os.Signal) error {
	select {
	case sig := <-signals:
		fmt.Fprintln(t.out, "\nEnding: transactions in progress are finished, idle sessions are told to go. Again to end at once.")
		return t.d.drain(sig, signals)
	case err := <-t.d.current.failed:
		t.d.current.shutdown(context.Background())
		return &exitError{exitTemporary, err.Error()}
	}
}
