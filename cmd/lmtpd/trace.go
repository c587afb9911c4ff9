package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "show the dialog of sessions as it happens",
		Long: "Show the commands and replies of sessions as they go over the wire, until Ctrl-C: those\nof one client, those with one recipient, or all. Messages are not shown. Nothing is\n" +
			"written to the log, and the daemon goes on as before. Exit code 0: ended by Ctrl-C; 69: no\ndaemon is running, it has ended, or this user may not ask it.",
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	at := cmd.Flags().String("socket", "", "`PATH` of the daemon's socket (default: status.socket of the configuration)")
	client := cmd.Flags().String("client", "", "only sessions of this `CLIENT`: an IP address, unix, or its name in LHLO")
	recipient := cmd.Flags().String("recipient", "", "only sessions with this `ADDRESS`, or part of one, as a recipient")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		addr, err := statusSocket(*at, *path)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		return trace(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), addr, *client, strings.Trim(*recipient, "<>"))
	}
	return cmd
}

// trace copies what the daemon at addr shows until ctx ends.
func trace(ctx context.Context, out, notes io.Writer, addr socketAddress, client, recipient string) error {
	query := url.Values{"client": {client}, "recipient": {recipient}}
	resp, err := askDaemon(ctx, addr, "/trace?"+query.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fmt.Fprintln(notes, "watching; Ctrl-C ends it")
	_, err = io.Copy(out, resp.Body)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		err = errors.New("it has ended")
	}
	return &exitError{exitUnavailable, "the daemon is gone: " + err.Error()}
}

// askDaemon asks the daemon at addr for a page. Errors are *exitError.
func askDaemon(ctx context.Context, addr socketAddress, page string) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, addr.Network, addr.Address)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+page, nil)
	if err != nil {
		return nil, &exitError{exitUnavailable, err.Error()}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, notRunning(addr.Address, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return nil, &exitError{exitUnavailable, fmt.Sprintf("%s does not answer as lmtpd does: %s: %s", addr.Address, resp.Status, printable(strings.TrimSpace(string(text))))}
	}
	return resp, nil
}
