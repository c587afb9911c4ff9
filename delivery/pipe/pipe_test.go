package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/userdb"
)

// runner is one that may run programs where the test is root.
func runner() *command.Runner {
	r := &command.Runner{}
	if os.Geteuid() == 0 {
		r.Account = &command.Account{UID: 64101, GID: 64201}
	}
	return r
}

// sh is a Pipe to a shell script, which finds args as $1, $2 ...
func sh(script string, args ...string) *Pipe {
	return &Pipe{Command: append([]string{"/bin/sh", "-c", strings.ReplaceAll(script, "{", "{{"), "sh"}, args...), Runner: runner(), Log: slog.New(slog.DiscardHandler)}
}

func parcel(text, from, to string) *delivery.Parcel {
	addr, err := userdb.Rules{Delimiter: "+"}.ParseString(to)
	if err != nil {
		panic(err)
	}
	return &delivery.Parcel{
		ID: "id-1", QueueID: "4XyZ", From: from, Size: int64(len(text)), Open: func() io.Reader { return strings.NewReader(text) },
		Rcpts: []delivery.ParcelRcpt{{Address: to, Parts: addr, User: addr.Local, ORcpt: "old@example.org"}},
	}
}

func run(t *testing.T, p *Pipe, m *delivery.Parcel) delivery.Handover {
	t.Helper()
	return runCtx(t.Context(), t, p, m)
}

func runCtx(ctx context.Context, t *testing.T, p *Pipe, m *delivery.Parcel) delivery.Handover {
	t.Helper()
	var got []delivery.Handover
	p.Deliver(ctx, m, func(_ int, h delivery.Handover) { got = append(got, h) })
	if len(got) != 1 {
		t.Fatalf("%d outcomes", len(got))
	}
	return got[0]
}

// outDir is a directory in which programs of runner may write.
func outDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pipe-test") // whose parents anybody may enter
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// The message and all values arrive as they are: whatever a shell would do with them.
func TestValues(t *testing.T) {
	dir := outDir(t)
	if _, err := syscall.Dup(1); err != nil { // one that is not closed by itself
		t.Fatal(err)
	}
	p := sh("")
	p.Command = []string{"/bin/sh", "-c", `d=$1; cat >"$d/message"; shift; for a; do printf '%s\n' "$a"; done >"$d/args"; env >"$d/env"; ls -l /proc/self/fd >"$d/fds"; id -u >"$d/uid"; pwd >"$d/pwd"`, "sh", dir,
		"{sender}", "{recipient}", "{local}", "{detail}", "{domain}", "{user}", "{original_recipient}", "{size}", "{id}", "{queue_id}", "--to={recipient}", "{{x}"}
	const evil = "$(touch${IFS}DIR/x)`touch${IFS}DIR/y`;|&<>'*?~"
	text := "Subject: x\n\n.\nno end"
	m := parcel(text, "a b'\"$HOME;@example.net", "bob+x@example.org")
	m.Rcpts[0].Parts.Detail = strings.ReplaceAll(evil, "DIR", dir)
	if h := run(t, p, m); h.Err != nil || h.Target != "/bin/sh" {
		t.Fatalf("%+v", h)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if got := read("message"); got != text {
		t.Errorf("%q", got)
	}
	want := []string{m.From, "bob+x@example.org", "bob", m.Rcpts[0].Parts.Detail, "example.org", "bob", "old@example.org", strconv.Itoa(len(text)), "id-1", "4XyZ", "--to=bob+x@example.org", "{x}", ""}
	if got := read("args"); got != strings.Join(want, "\n") {
		t.Errorf("%q", got)
	}
	for line := range strings.Lines(read("env")) {
		if name, _, _ := strings.Cut(line, "="); !strings.Contains(" PATH LC_ALL PWD SHLVL _ OLDPWD ", " "+name+" ") {
			t.Errorf("environment has %q", line)
		}
	}
	if got := read("fds"); strings.Count(got, " -> ") != 4 { // three, and that of ls
		t.Errorf("descriptors:\n%s", got)
	}
	if os.Geteuid() == 0 && read("uid") != "64101\n" {
		t.Errorf("uid %q", read("uid"))
	}
	if read("pwd") != "/\n" {
		t.Errorf("directory %q", read("pwd"))
	}
	for _, name := range []string{"x", "y"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Error("a value was run")
		}
	}
}

// A sender cannot make up options.
func TestOption(t *testing.T) {
	p := &Pipe{Command: []string{"/bin/sh", "-c", "exit 65", "sh", "{sender}"}, Runner: runner()}
	if h := run(t, p, parcel("x", "-oQ/tmp@example.org", "bob@example.org")); !errors.Is(h.Err, delivery.ErrMisconfigured) || h.Reply.Code != 0 {
		t.Errorf("%+v", h)
	}
	p.Command = []string{"/bin/sh", "-c", "exit 0", "sh", "--", "{sender}"}
	if h := run(t, p, parcel("x", "-oQ/tmp@example.org", "bob@example.org")); h.Err != nil {
		t.Errorf("%+v", h)
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[int]string{
		1: "451 4.3.0 Temporary failure of delivery", 2: "451 4.3.0 T*", 63: "451 4.3.0 T*", 64: "451 4.3.5 Delivery is misconfigured",
		65: "554 5.6.0 Message was refused: spam & more", 66: "451 4.3.0 T*", 67: "550 5.1.1 User unknown: spam & more",
		68: "550 5.1.2 Host unknown: spam & more", 69: "554 5.3.0 Message was refused: spam & more", 70: "451 4.3.0 T*", 71: "451 4.3.0 T*",
		72: "451 4.3.0 T*", 73: "451 4.2.0 T*", 74: "451 4.3.0 T*", 75: "451 4.3.0 Temporary failure of delivery: spam & more", 76: "451 4.5.0 T*",
		77: "554 5.7.1 Message is not allowed: spam & more", 78: "451 4.3.5 D*", 79: "451 4.3.0 T*", 126: "451 4.3.0 T*", 127: "451 4.3.0 T*", 255: "451 4.3.0 T*",
	} {
		h := run(t, sh(`echo "spam & more" >&2; exit $1`, strconv.Itoa(status)), parcel("x", "", "bob@example.org"))
		got := h.Reply.Error()
		if prefix, ok := strings.CutSuffix(want, "*"); got != want && !(ok && strings.HasPrefix(got, prefix)) {
			t.Errorf("%d: %q, want %q", status, got, want)
		}
		if h.Err == nil || !strings.Contains(h.Err.Error(), fmt.Sprintf("exit status %d", status)) || !strings.HasSuffix(h.Err.Error(), `; it said "spam & more"`) {
			t.Errorf("%d: %v", status, h.Err)
		}
	}
	h := run(t, sh(`kill -9 $$`), parcel("x", "", "bob@example.org"))
	if h.Reply.Error() != "451 4.3.0 Temporary failure of delivery" || h.Err.Error() != "/bin/sh: ended by a signal" {
		t.Errorf("%+v", h)
	}
	for output, want := range map[string]string{
		`5.7.9 not from you\nsecond line`: "554 5.7.9 Message was refused: not from you",
		`4.7.9 later`:                     "554 5.6.0 Message was refused: 4.7.9 later",
		`5.7.9999 x`:                      "554 5.6.0 Message was refused: 5.7.9999 x",
		`\033[2J\001\377x`:                "554 5.6.0 Message was refused: ?[2J??x",
		`\n\n  \n`:                        "554 5.6.0 Message was refused",
	} {
		if h := run(t, sh(`printf "$1"; exit 65`, output), parcel("x", "", "bob@example.org")); h.Reply.Error() != want {
			t.Errorf("%s: %q, want %q", output, h.Reply.Error(), want)
		}
	}
}

// Programs that cannot be run are the administrator's to mend.
func TestNoProgram(t *testing.T) {
	dir := outDir(t)
	if err := os.WriteFile(dir+"/text", []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/private", []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{dir + "/none", dir + "/text", dir + "/private", dir} {
		h := run(t, &Pipe{Command: []string{program}, Runner: runner()}, parcel("x", "", "bob@example.org"))
		if !errors.Is(h.Err, delivery.ErrMisconfigured) {
			t.Errorf("%s: %+v", program, h)
		}
	}
	if os.Geteuid() == 0 {
		if h := run(t, &Pipe{Command: []string{"/bin/true"}, Runner: &command.Runner{}}, parcel("x", "", "bob@example.org")); !errors.Is(h.Err, delivery.ErrMisconfigured) {
			t.Errorf("as root: %+v", h)
		}
	}
}

// A program that takes too long is killed, with its children.
func TestTimeLimit(t *testing.T) {
	dir := outDir(t)
	p := sh(`sh -c 'echo $$ >"$0/child"; exec sleep 1000' "$1" & echo $$ >"$1/self"; while ! [ -s "$1/child" ]; do sleep 0.01; done; echo working; wait`, dir)
	p.Runner.Timeout = 300 * time.Millisecond
	h := run(t, p, parcel("x", "", "bob@example.org"))
	if !errors.Is(h.Err, delivery.ErrSlow) || !strings.HasSuffix(h.Err.Error(), `; it said "working"`) {
		t.Fatalf("%+v", h)
	}
	for _, name := range []string{"self", "child"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		pid, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if err := gone(pid); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if h := runCtx(ctx, t, sh("sleep 1000"), parcel("x", "", "bob@example.org")); h.Err == nil {
		t.Errorf("%+v", h)
	}
}

// gone waits until a process has ended: the kernel kills when it gets to it.
func gone(pid int) error {
	for range 5000 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return syscall.EBUSY
}

// Neither endless output nor a program that does not read holds anything up, and a large
// message comes whole.
func TestMuchData(t *testing.T) {
	big := strings.Repeat("0123456789abcde\n", 1<<16) // more than a pipe holds
	h := run(t, sh(`i=0; while [ $i -lt 20000 ]; do echo "much output, and more of it"; i=$((i+1)); done; exit 65`), parcel(big, "", "bob@example.org"))
	if len(h.Err.Error()) > 1000 || len(h.Reply.Text) > 600 || h.Reply.Code != 554 {
		t.Errorf("%d %d", len(h.Err.Error()), len(h.Reply.Text))
	}
	if h := run(t, sh(`exit 0`), parcel(big, "", "bob@example.org")); h.Err != nil {
		t.Errorf("%+v", h)
	}
	if h := run(t, sh(`[ "$(wc -c)" = "$1" ] || exit 65`, strconv.Itoa(len(big))), parcel(big, "", "bob@example.org")); h.Err != nil {
		t.Errorf("%+v", h)
	}
}

// No more of them at once than allowed.
func TestParallel(t *testing.T) {
	dir := outDir(t)
	p := sh(`mkdir "$1/one" || exit 65; rmdir "$1/one"`, dir)
	p.Runner.Parallel = 1
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if h := run(t, p, parcel("x", "", "bob@example.org")); h.Err != nil {
				t.Errorf("%+v", h)
			}
		})
	}
	all.Wait()
}

// What a program says that ends well is in the log.
func TestLog(t *testing.T) {
	var log strings.Builder
	p := sh("echo filed under 7")
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	run(t, p, parcel("x", "", "bob@example.org"))
	if !strings.Contains(log.String(), `msg="program said" id=id-1 to=bob@example.org program=/bin/sh text="filed under 7"`) {
		t.Error(log.String())
	}
}
