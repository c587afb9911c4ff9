package relay_test

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/relay"
)

// script is a server that follows a dialog: "< X" wants a line that begins with X, "<data"
// reads a message, "> X" answers, "hang" waits for the client to leave. Each connection
// has a dialog of its own.
type script struct {
	relay.Host
	mu    sync.Mutex
	conns int
	data  []string
}

func newScript(t *testing.T, dialogs ...string) *script {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &script{Host: relay.Host{Network: "unix", Addr: l.Addr().String()}}
	var all sync.WaitGroup
	all.Go(func() {
		for _, d := range dialogs {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				s.play(t, conn, d)
			})
		}
		l.Close()
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return s
}

func (s *script) play(t *testing.T, conn net.Conn, dialog string) {
	in := bufio.NewReader(conn)
	for step := range strings.Lines(dialog) {
		step = strings.TrimSuffix(strings.TrimLeft(step, "\t"), "\n")
		switch verb, rest, _ := strings.Cut(step, " "); verb {
		case ">":
			io.WriteString(conn, strings.ReplaceAll(rest, `\n`, "\r\n")+"\r\n")
		case "<":
			if line, _ := readLine(in); !strings.HasPrefix(line, rest) {
				t.Errorf("server got %q, want %q", line, rest)
				return
			}
		case "<data":
			var text strings.Builder
			for line, ok := readLine(in); ok && line != "."; line, ok = readLine(in) {
				text.WriteString(line + "\n")
			}
			s.mu.Lock()
			s.data = append(s.data, text.String())
			s.mu.Unlock()
		case "hang":
			for line, ok := readLine(in); ok && line != "QUIT"; line, ok = readLine(in) {
			}
		}
	}
}

func readLine(in *bufio.Reader) (string, bool) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "gone: " + err.Error(), false
	}
	return strings.TrimRight(line, "\r\n"), true
}
