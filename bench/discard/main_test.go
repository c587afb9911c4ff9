package main

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestServe(t *testing.T) {
	if err := serve("uucp", nil); err == nil {
		t.Error("uucp: no error")
	}
	for mode, hello := range map[string]string{"lmtp": "LHLO me", "smtp": "EHLO me"} {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go serve(mode, l)
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for _, line := range []struct{ send, want string }{
			{"", "220"}, {hello, "250"}, {"MAIL FROM:<a@example.net>", "250"}, {"RCPT TO:<b@example.org>", "250"},
			{"DATA", "354"}, {"Subject: x\r\n\r\nx\r\n.", "250"}, {"QUIT", "221"},
		} {
			if line.send != "" {
				if _, err := c.Write([]byte(line.send + "\r\n")); err != nil {
					t.Fatal(err)
				}
			}
			for {
				got, err := in.ReadString('\n')
				if err != nil || !strings.HasPrefix(got, line.want) {
					t.Fatalf("%s: %q: %q, %v", mode, line.send, got, err)
				}
				if got[3] != '-' {
					break
				}
			}
		}
	}
}
