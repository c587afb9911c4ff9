package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

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
	daemon := daemonFlags(cmd)
	client := cmd.Flags().String("client", "", "only sessions of this `CLIENT`: an IP address, unix, or its name in LHLO")
	recipient := cmd.Flags().String("recipient", "", "only sessions with this `ADDRESS`, or part of one, as a recipient")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		addr, err := daemon()
		if err != nil {
			return err
		}
		ctx, stop := untilInterrupted()
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
