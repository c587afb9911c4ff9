package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// daemonFlags adds what all commands have that ask the running daemon. The function
// says where it listens, once the flags are parsed.
func daemonFlags(cmd *cobra.Command) func() (socketAddress, error) {
	path := configFlag(cmd)
	at := cmd.Flags().String("socket", "", "`PATH` of the daemon's socket (default: status.socket of the configuration)")
	return func() (socketAddress, error) { return statusSocket(*at, *path) }
}

// untilInterrupted is a context that Ctrl-C and SIGTERM end.
func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
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
