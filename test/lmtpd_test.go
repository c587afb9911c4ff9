package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
)

// agent is a running lmtpd.
type agent struct {
	*process
	config string // its configuration file
	notify *net.UnixConn
	states *lines // what it has said there
	told   int    // of them, that have been waited for
}

type agentOptions struct {
	dir    string              // holds its configuration file
	config string              // content of lmtpd.toml
	as     *syscall.Credential // nil: as the test; else it owns the state directory
	within []string            // command that lmtpd is started through, as the test itself

	command string   // "": serve
	socket  *os.File // passed as systemd does, by the name of the command
}

// startLMTPD runs `lmtpd serve` and returns once it says that it is ready.
func startLMTPD(t *testing.T, o agentOptions) *agent {
	t.Helper()
	a := &agent{config: filepath.Join(o.dir, "lmtpd.toml"), states: newLines()}
	writeFile(t, a.config, o.config)

	// As systemd does: sd_notify(3).
	notify := filepath.Join(o.dir, "notify")
	var err error
	a.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.notify.Close() })
	if err := os.Chmod(notify, 0o777); err != nil {
		t.Fatal(err)
	}

	state := filepath.Join(o.dir, "state")
	mkdir(t, state, o.as)
	command := o.command
	if command == "" {
		command = "serve"
	}
	args := append(append([]string{}, o.within...), program, command, "-c", a.config)
	if o.socket != nil { // LISTEN_PID is the shell's, which becomes the next program
		args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "STATE_DIRECTORY="+state)
	if o.socket != nil {
		cmd.ExtraFiles = []*os.File{o.socket}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES="+command)
	}
	// Pdeathsig: it does not survive a test run that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if o.within == nil {
		cmd.SysProcAttr.Credential = o.as
	}
	a.process = start(t, "lmtpd", cmd)
	go a.readStates()
	go func() {
		// An lmtpd that ends says nothing more: end the wait below.
		<-a.done
		a.notify.Close()
	}()
	a.awaitState(t, "READY=1")
	return a
}

// readStates takes what it says to its manager, all the time: it waits for that.
func (a *agent) readStates() {
	r, w := io.Pipe()
	go a.states.copyFrom(r)
	buf := make([]byte, 4096)
	for {
		n, err := a.notify.Read(buf)
		if err != nil {
			w.Close()
			return
		}
		fmt.Fprintf(w, "%s\n", bytes.TrimSuffix(buf[:n], []byte("\n")))
	}
}

// awaitState waits for a line of the service's messages to its manager, after those
// that have been waited for before.
func (a *agent) awaitState(t *testing.T, want string) {
	t.Helper()
	_, a.told = a.states.search(t, a.told, "^"+regexp.QuoteMeta(want)+"$")
}

// stop asks it to end and expects exit status 0.
func (a *agent) stop(t *testing.T) {
	t.Helper()
	a.signal(t, syscall.SIGTERM)
	if status := a.wait(t); status != 0 {
		t.Errorf("lmtpd: exit status %d after SIGTERM", status)
	}
}
