package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestInject(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: tracing another process")
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	dir := t.TempDir()
	for _, c := range []struct {
		call, path string
		want       syscall.Errno
	}{
		{"open", dir + "/file", 0},
		{"read", dir + "/file", 0},
		{"fifo", dir + "/fifo", 0},
		{"fifo", dir + "/file", syscall.EEXIST},
		{"read", dir + "/" + strings.Repeat("long", 50), syscall.ENOENT},
	} {
		if got, err := inject(cmd.Process.Pid, c.call, c.path); got != c.want || err != nil {
			t.Errorf("%s %s: %v, %v; want %v", c.call, c.path, got, err, c.want)
		}
	}
	if info, err := os.Lstat(dir + "/fifo"); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("no FIFO was made: %v", err)
	}
	if _, err := in.Write([]byte("still here\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "still here\n" {
		t.Errorf("the process does not go on: %q, %v", line, err)
	}
	if _, err := inject(cmd.Process.Pid, "dance", dir); err == nil {
		t.Error("an unknown call")
	}
}
