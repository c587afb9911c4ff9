package delivery

import (
	"net/mail"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Headers of large messages are equally long, and say what they said before.
func TestEvenHeaders(t *testing.T) {
	s := newSite(t, "bob", "eve.with.a.longer.name")
	s.agent.Spool.Memory = 1 << 10
	s.start(t)
	body := strings.Repeat("0123456789abcde\r\n", 1000)
	for _, message := range []string{"Subject: x\r\n\r\n" + body, body} { // the second has no header
		to := []string{"bob@example.org", "eve.with.a.longer.name@example.org"}
		c := s.client(t)
		wantReplies(t, c.Send("ann@example.org", to, message, 2), "250 2.0.0", "250 2.0.0")
		var dates []string
		sizes := map[int]bool{}
		for i, user := range []string{"bob", "eve.with.a.longer.name"} {
			stored := readOne(t, s.maildir(user))
			sizes[len(stored)] = true
			parsed, err := mail.ReadMessage(strings.NewReader(stored))
			if err != nil {
				t.Fatal(err)
			}
			received := parsed.Header.Get("Received")
			clause, date, _ := strings.Cut(received, "; ")
			if !strings.HasSuffix(clause, "for <"+to[i]+">") || parsed.Header.Get("Delivered-To") != to[i] {
				t.Errorf("%q", received)
			}
			dates = append(dates, strings.TrimLeft(date, " "))
			if _, err := mail.ParseDate(dates[i]); err != nil {
				t.Error(err)
			}
			if text := strings.ReplaceAll(body, "\r\n", "\n"); !strings.HasSuffix(stored, "\n\n"+text) {
				t.Errorf("%.600q", stored)
			}
		}
		if len(sizes) != 1 || dates[0] != dates[1] {
			t.Errorf("sizes %v, dates %q", sizes, dates)
		}
	}
	// Small ones are left alone, and so is what would make a line too long.
	if got := string(lengthen([]byte("A: b\nReceived: x; date\n"), 30)); got != "A: b\nReceived: x;        date\n" {
		t.Errorf("%q", got)
	}
	long := "Received: x; date\n"
	if got := string(lengthen([]byte(long), len(long)+maxLine)); got != long {
		t.Errorf("%.60q", got)
	}
	// A shared header has no "; " in its Received, but perhaps in the sender's address.
	shared := "Return-Path: <\"a; b\"@example.org>\nReceived: x;\n\tdate\n"
	if got := string(lengthen([]byte(shared), 200)); got != shared {
		t.Errorf("%q", got)
	}
	targets := []maildir.Target{{Header: []byte("none\n")}, {Header: []byte("longer; x\n")}}
	if evenHeaders(targets); string(targets[0].Header) != "none\n" {
		t.Errorf("%q", targets[0].Header)
	}
}
