package test

import (
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test has started and that ends with the test.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdout *lines
	stderr *lines
	done   chan struct{} // closed when it has ended and all output is read
}

// start runs cmd in the background. Its output is printed if the test fails.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, stdout: newLines(), stderr: newLines(), done: make(chan struct{})}
	outRead, outWrite := pipe(t)
	errRead, errWrite := pipe(t)
	cmd.Stdout, cmd.Stderr = outWrite, errWrite
	err := cmd.Start()
	outWrite.Close()
	errWrite.Close()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	read := make(chan struct{}, 2)
	for r, l := range map[io.ReadCloser]*lines{outRead: p.stdout, errRead: p.stderr} {
		go func() {
			l.copyFrom(r)
			r.Close()
			read <- struct{}{}
		}()
	}
	go func() {
		<-read
		<-read
		cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("--- output of %s\n%s\n%s", name, p.stdout, p.stderr)
		}
	})
	return p
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// wait returns the exit status: 0 to 255, or -1 if a signal ended it.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.cmd.Process.Signal(syscall.SIGQUIT) // a Go program then says where it is
		select {
		case <-p.done:
		case <-time.After(patience):
		}
		t.Fatalf("%s does not end", p.name)
		return -1
	}
}

// run runs a program to its end and fails the test unless it succeeds.
func run(t *testing.T, stdin string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// tempDir is like t.TempDir, but short (a socket path may have 107 octets) and
// open to other users, as the programs of a test run as several.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lm")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func mkdir(t *testing.T, dir string, owner *syscall.Credential) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
