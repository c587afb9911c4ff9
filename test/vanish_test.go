package test

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClientVanishes cuts the connection after each octet of a session in turn.
// Before the end of the message nothing is stored, and nothing is left behind.
func TestClientVanishes(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "one", "two")
	me := &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	makeMaildir(t, s.maildir("one"), me)
	makeMaildir(t, s.maildir("two"), me)
	const session = "LHLO client.example.net\r\nMAIL FROM:<sender@example.net>\r\n" +
		"RCPT TO:<one@example.org>\r\nRCPT TO:<two@example.org>\r\nDATA\r\n" + header + "\r\n..\r\nbody\r\n.\r\n"
	for end := range len(session) { // all but the last octet of the end mark
		vanish(t, s.sock, session[:end], end%2 == 0)
	}
	// A body that does not stay in memory.
	vanish(t, s.sock, strings.TrimSuffix(session, ".\r\n")+strings.Repeat("0123456789\r\n", 100_000), true)

	// All sessions are over, and the next client is served.
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	to := []string{"one@example.org", "two@example.org"}
	for _, r := range c.send(t, "", "", to, []byte(header+"\r\n"), 2) {
		if !strings.HasPrefix(r, "250 2.0.0 ") {
			t.Error(r)
		}
	}
	c.expect(t, "221", "QUIT")
	s.stop(t)
	for _, user := range []string{"one", "two"} {
		m := oneMessage(t, s.maildir(user)) // checks tmp/ too
		checkStored(t, m, trace{recipient: user + "@example.org", helo: "client.example.net", with: "LMTP"}, []byte(header+"\r\n"))
	}
	litter, err := os.ReadDir(filepath.Join(s.dir, "state"))
	if err != nil || len(litter) != 1 || litter[0].Name() != "redelivery" {
		t.Errorf("state directory: %v %v, want the memory of deliveries alone", litter, err)
	}
}

// vanish sends the beginning of a session and is gone: with the end of its
// output, waiting for the server to close too, or all at once.
func vanish(t *testing.T, sock, beginning string, gently bool) {
	t.Helper()
	conn, err := net.Dial("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, beginning); err != nil {
		t.Fatal(err)
	}
	if gently {
		conn.(*net.UnixConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("after %d octets: %v", len(beginning), err)
		}
	}
}
