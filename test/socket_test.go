package test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestSocketTaken: a second daemon leaves the first one's socket alone, and
// takes it over once the first has died without a word.
func TestSocketTaken(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "user")
	second := exec.Command(program, "serve", "-c", s.config)
	second.Env = append(os.Environ(), "STATE_DIRECTORY="+s.dir+"/state")
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), s.sock) {
		t.Errorf("%v: %s", err, out)
	}
	c := idle(t, s.sock)
	c.expect(t, "250", "NOOP")

	s.signal(t, syscall.SIGKILL)
	s.wait(t)
	if _, err := os.Lstat(s.sock); err != nil {
		t.Fatalf("the dead daemon's socket file: %v", err)
	}
	if conn, err := net.Dial("unix", s.sock); err == nil {
		conn.Close()
		t.Fatal("somebody still listens")
	}
	if err := os.Remove(s.dir + "/notify"); err != nil {
		t.Fatal(err)
	}
	third := startLMTPD(t, agentOptions{dir: s.dir, config: readFile(t, s.config)})
	idle(t, s.sock).expect(t, "221", "QUIT")
	third.stop(t)
}
