// Command lmtpd is the last hop of a mail: it takes messages over LMTP and puts
// them into the Maildirs of their recipients.
//
//	main.go        the subcommands
//	serve.go       the daemon: start, reload, drain       try.go    the same without configuration
//	writer.go      the second process, for system users   confined.go  what each may touch
//	build.go       from the configuration to the parts    commands.go, check.go, deliver.go, send.go
//	config*.go     the configuration file
//	listeners.go   sockets, across reloads                inherit.go  those that systemd passes
//	notify.go      what systemd is told                   logging.go, journal.go
//	observer.go    what operators can ask: metrics.go, activity.go; on endpoint.go
//	explain.go, quota.go   status.go, trace.go            on daemonclient.go
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Exit codes: those of sysexits.h, as Postfix's pipe(8) reads them.
const (
	exitOK          = 0
	exitUsage       = 64
	exitData        = 65
	exitNoUser      = 67
	exitUnavailable = 69
	exitTemporary   = 75
	exitConfig      = 78
)

// exitError ends the program with a code. Its text has been chosen for a person;
// an empty one is not printed.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings as arguments.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		// Whatever comes from cobra itself is about the command line.
		fmt.Fprintf(stderr, "lmtpd: %v\nRun \"lmtpd --help\" for usage.\n", err)
		return exitUsage
	}
	if exit.text != "" {
		fmt.Fprintf(stderr, "lmtpd: %s\n", exit.text)
	}
	return exit.code
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "lmtpd",
		Short:         "delivers mail from LMTP to Maildirs",
		Long:          "lmtpd is the last hop of a mail: it takes messages over LMTP (RFC 2033) and puts\nthem into the Maildirs of their recipients. To see it work, run \"lmtpd try\".",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("lmtpd {{.Version}}\n")
	root.AddCommand(serveCommand(), tryCommand(), checkCommand(), deliverCommand(), sendCommand(), writerCommand(), explainCommand(), quotaCommand(), statusCommand(), traceCommand(), versionCommand())
	return root
}

// configFlag adds -c, which several commands have.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", defaultConfigPath, "configuration `FILE`")
}
