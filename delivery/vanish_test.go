package delivery

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

// TestVanishingClient: a client goes away behind each octet of a transaction. Until
// the end of the data has arrived nothing of it is left behind; from then on the
// message is delivered, whole and once.
func TestVanishingClient(t *testing.T) {
	for _, mode := range []protocol.Mode{protocol.LMTP, protocol.SMTP} {
		for _, memory := range []int64{0, -1} {
			s := newSite(t, "bob", "ann")
			s.agent.Spool.Memory = memory
			verb := "LHLO"
			if mode == protocol.SMTP {
				verb = "EHLO"
			}
			script := verb + " client.example.org\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<ann@example.org>\r\nDATA\r\n" +
				"Return-Path: <x@y>\r\nSubject: x\r\n\r\n.\r\r\nhello\r\n.\r\n"
			stuffed := strings.Replace(script, "\r\n.\r\r\n", "\r\n..\r\r\n", 1)
			for n := 0; n <= len(stuffed); n++ {
				srv := &protocol.Server{
					Mode: mode, Hostname: "mx.example.org", Handler: s.agent, Policy: protocol.Policy{Rcpt: s.agent.Rcpt},
					Newlines: protocol.NewlinesPreserve, Log: s.agent.Log,
				}
				vanish(t, srv, stuffed[:n])
				complete := n == len(stuffed)
				for _, user := range []string{"bob", "ann"} {
					left := files(t, s.home(user))
					if want := 0; complete {
						if want = 1; len(left) != want {
							t.Fatalf("complete: %s has %v", user, left)
						}
						if m := readOne(t, s.maildir(user)); !strings.HasSuffix(m, "\nSubject: x\n\n.\r\nhello\n") {
							t.Errorf("%s has %q", user, m)
						}
					} else if len(left) != want {
						t.Fatalf("%v, Memory %d, %d octets: %s has %v", mode, memory, n, user, left)
					}
				}
				if left := stateEntries(t, s.state); len(left) > 0 {
					t.Fatalf("%v, %d octets: left in the state directory: %v", mode, n, left)
				}
			}
			// Each of those that were cut off in the data is in the log.
			dataAt := strings.Index(stuffed, "DATA\r\n") + len("DATA\r\n")
			for _, o := range s.reported() {
				if !o.Reply.OK() && o.Reply.Error() != "451 4.4.2 Message did not arrive whole" {
					t.Errorf("reported %+v", o)
				}
			}
			if got, want := len(s.reported()), 2*(len(stuffed)-dataAt+1); got != want {
				t.Errorf("%d outcomes, want %d", got, want)
			}
		}
	}
}

// vanish serves a client that sends some octets and no more.
func vanish(t *testing.T, srv *protocol.Server, octets string) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := near.Write([]byte(octets)); err != nil {
		t.Fatal(err)
	}
	// What the server writes must go somewhere, or it would notice too early.
	near.(*net.UnixConn).CloseWrite()
	read := make(chan struct{})
	go func() { io.Copy(io.Discard, near); close(read) }()
	srv.ServeConn(context.Background(), far)
	<-read
	near.Close()
}
