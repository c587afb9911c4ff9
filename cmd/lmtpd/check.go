package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "say whether the configuration is right",
		Long: "Read the configuration and the user files, and look for what they need of this\nmachine. Nothing is changed and no socket is opened, so that it can be run beside a\n" +
			"running daemon; run it as the daemon's user. Exit code 0: the daemon would start with\nit; 78: it would not, and each fault is printed with file, line, key and remedy.",
		Args: cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return check(cmd.OutOrStdout(), *path)
	}
	return cmd
}

func check(out io.Writer, path string) error {
	c, err := loadConfig(path)
	if err != nil {
		return &exitError{exitConfig, err.Error()}
	}
	found := c.checkEnvironment(nil)
	var more configErrors
	if agent, err := buildAgent(c, slog.New(slog.DiscardHandler)); err != nil {
		if !errors.As(err, &more) {
			return &exitError{exitConfig, err.Error()}
		}
	} else {
		uid, sure := c.frontUID(os.Geteuid(), newDaemonView(c, path, "/proc"))
		if errors.As(c.checkCommands(uid), &more) {
			for _, f := range more {
				f.Warning = true // the daemon may be another user
				if !sure {
					f.Problem = `if "lmtpd serve" runs as root: ` + f.Problem
				}
			}
		}
		more = append(more, c.checkRoutes(agent)...)
		more = append(more, c.checkHomes(agent, newDaemonView(c, path, "/proc"))...)
	}
	found = append(found, more...)
	found.sort()
	if found.fatal() {
		return &exitError{exitConfig, found.Error()}
	}
	for _, f := range found {
		fmt.Fprintln(out, f)
	}
	_, err = fmt.Fprintf(out, "%s: good: %d user databases, %d sockets of its own, mail to %s\n", path, len(c.Userdb), len(c.Listen), c.Mailbox.Path)
	return err
}
