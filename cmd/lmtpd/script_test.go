package main

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The command line's tests are the files testdata/script/*.txtar. Beyond the
// commands of testscript there are
//
//	exits CODE CMD...  run CMD, which must end with that exit code
//	ready              wait until the program in the background says READY=1 to systemd
//	stopping           wait until it says STOPPING=1
//	reloaded           wait until it says READY=1 again after RELOADING=1
//	expand FILE...     put values into $WORK and other variables in the files
//	[!] anyfile DIR    no regular file is below DIR (with "!"), or at least one is
//	maildir DIR FILE   the one message in DIR/new equals FILE, its Received field aside
//	listen PATH        a live socket that answers nothing, until the end of the script
//	stale PATH         a socket that nobody serves any more
//	dialog PATH FILE   talk to a Unix socket as FILE says, see playDialog
//	certificate C K    a new certificate and its key, in files
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(env.WorkDir, ".notify"), Net: "unixgram"})
			if err != nil {
				return err
			}
			env.Defer(func() { conn.Close() })
			env.Setenv("NOTIFY_SOCKET", conn.LocalAddr().String())
			env.Values["notify"] = conn
			env.Values["words"] = &[]string{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"ready":    func(ts *testscript.TestScript, _ bool, _ []string) { waitNotify(ts, "READY=1") },
			"stopping": func(ts *testscript.TestScript, _ bool, _ []string) { waitNotify(ts, "STOPPING=1") },
			"reloaded": func(ts *testscript.TestScript, _ bool, _ []string) {
				waitNotify(ts, "RELOADING=1")
				waitNotify(ts, "READY=1")
			},
			"expand": func(ts *testscript.TestScript, _ bool, files []string) {
				for _, f := range files {
					ts.Check(os.WriteFile(ts.MkAbs(f), []byte(os.Expand(ts.ReadFile(f), ts.Getenv)), 0o600))
				}
			},
			"anyfile": anyFile,
			"maildir": oneMessage,
			"listen":  listenSocket,
			"stale":   staleSocket,

			"dialog":      playDialog,
			"certificate": makeCertificate,
		},
	})
}

// TestMain lets the scripts run "lmtpd" as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lmtpd": main})
}

// waitNotify reads what the program tells systemd until it is word. Ten seconds
// are for a program that has died; nothing waits for them otherwise.
func waitNotify(ts *testscript.TestScript, word string) {
	conn := ts.Value("notify").(*net.UnixConn)
	words := ts.Value("words").(*[]string)
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	for {
		for len(*words) > 0 {
			w := (*words)[0]
			*words = (*words)[1:]
			if w == word {
				return
			}
		}
		n, err := conn.Read(buf)
		if err != nil {
			ts.Fatalf("waiting for %s: %v", word, err)
		}
		*words = append(*words, strings.Split(string(buf[:n]), "\n")...)
	}
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func anyFile(ts *testscript.TestScript, neg bool, args []string) {
	var found []string
	filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			found = append(found, path)
		}
		return nil
	})
	if neg && len(found) > 0 {
		ts.Fatalf("left behind: %q", found)
	}
	if !neg && len(found) == 0 {
		ts.Fatalf("no file below %s", args[0])
	}
}

func oneMessage(ts *testscript.TestScript, _ bool, args []string) {
	files, _ := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "new", "*"))
	if len(files) != 1 {
		ts.Fatalf("%d messages in %s, want 1", len(files), args[0])
	}
	got, err := os.ReadFile(files[0])
	ts.Check(err)
	if g, w := withoutReceived(string(got)), ts.ReadFile(args[1]); g != w {
		ts.Fatalf("message:\n%s\nwant:\n%s", g, w)
	}
}

// withoutReceived takes our Received field out: it has the time in it.
func withoutReceived(msg string) string {
	before, field, ok := strings.Cut(msg, "Received:")
	if !ok {
		return msg
	}
	for {
		line, rest, _ := strings.Cut(field, "\n")
		field = rest
		if line == "" && rest == "" || !strings.HasPrefix(rest, "\t") {
			return before + rest
		}
	}
}

func listenSocket(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

func staleSocket(ts *testscript.TestScript, _ bool, args []string) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", ts.MkAbs(args[0]))
	ts.Check(err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	ts.Check(l.Close())
}
