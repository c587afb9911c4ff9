package delivery

import (
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.FixedZone("", 3600))

func tracer() *TraceOptions {
	return &TraceOptions{Hostname: "mx.example.org", Clock: func() time.Time { return noon }}
}

func rcptOf(local, domain string) *recipient {
	return &recipient{addr: userdb.Address{Local: local, Domain: domain}, user: &userdb.User{Name: local}}
}

func TestTraceHeader(t *testing.T) {
	tx := &protocol.Transaction{Session: &protocol.Session{Mode: protocol.LMTP, Hello: "client.example.org", RemoteAddr: &net.UnixAddr{}}}
	m := &message{id: "abc-1", from: "ann@example.org", received: receivedFrom(tx), with: tx.With()}
	r := rcptOf("bob", "example.org")
	r.orig = "Info@example.org"
	want := "Return-Path: <ann@example.org>\n" +
		"X-Original-To: Info@example.org\n" +
		"Delivered-To: bob@example.org\n" +
		"Received: from client.example.org\n" +
		"\tby mx.example.org (lmtpd) with LMTP id abc-1\n" +
		"\tfor <bob@example.org>; Sun, 1 Nov 2026 12:00:00 +0100\n"
	if got := string(tracer().header(m, r, noon)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	crlfed := tracer()
	crlfed.CRLF = true
	if got := string(crlfed.header(m, r, noon)); got != strings.ReplaceAll(want, "\n", "\r\n") {
		t.Errorf("got %q", got)
	}
	m.spooled = &spooled{header: messageHeader{bare: true}}
	if got := string(tracer().header(m, r, noon)); got != want+"\n" {
		t.Errorf("without a header of the message's own: %q", got)
	}
	// What says nothing new is left out, and the null sender stays null.
	m = &message{id: "x", received: "(from userid 7)"}
	r.orig = "bob@example.org"
	want = "Return-Path: <>\nDelivered-To: bob@example.org\n" +
		"Received: (from userid 7)\n\tby mx.example.org (lmtpd) id x\n\tfor <bob@example.org>; Sun, 1 Nov 2026 12:00:00 +0100\n"
	if got := string(tracer().header(m, r, noon)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTraceFields(t *testing.T) {
	m := &message{id: "x", from: "ann@example.org", received: "(from userid 7)"}
	r := rcptOf("bob", "example.org")
	const received = "Received: (from userid 7)\n\tby mx.example.org (lmtpd) id x\n\tfor <bob@example.org>; Sun, 1 Nov 2026 12:00:00 +0100\n"
	for _, test := range []struct {
		names []string
		orig  string
		want  string
	}{
		{[]string{"Received"}, "info@example.org", ""},
		{[]string{"received", "RETURN-PATH"}, "", "Return-Path: <ann@example.org>\n"},
		{[]string{"Received", "Envelope-To"}, "", "Envelope-To: bob@example.org\n"},
		{[]string{"Received", "X-Original-To"}, "", ""},
		{traceFieldNames[:], "info@example.org", "Return-Path: <ann@example.org>\nDelivery-Date: Sun, 1 Nov 2026 12:00:00 +0100\n" +
			"Envelope-To: info@example.org\nX-Original-To: info@example.org\nDelivered-To: bob@example.org\n"},
	} {
		o := tracer()
		var err error
		if o.Fields, err = ParseTraceFields(test.names); err != nil {
			t.Fatal(err)
		}
		r.orig = test.orig
		if got := string(o.header(m, r, noon)); got != test.want+received {
			t.Errorf("%v: got\n%s\nwant\n%s", test.names, got, test.want+received)
		}
	}
	for _, bad := range [][]string{nil, {"Delivered-To"}, {"Received", "X-Envelope-To"}} {
		if _, err := ParseTraceFields(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestReceivedFrom(t *testing.T) {
	for _, test := range []struct {
		hello string
		addr  net.Addr
		utf8  bool
		want  string
	}{
		{"mail.example.org", &net.UnixAddr{}, false, "from mail.example.org"},
		{"mail.example.org", &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 99}, false, "from mail.example.org ([192.0.2.1])"},
		{"[192.0.2.1]", &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1")}, false, "from [192.0.2.1] ([192.0.2.1])"},
		{"x", &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Zone: "eth0"}, false, "from x ([IPv6:2001:db8::1])"},
		{"x) by evil (", nil, false, "from x??by?evil??"},
		{"a;b\"c\\d<e>,f", nil, false, "from a?b?c?d?e??f"},
		{"grün.example", nil, false, "from gr?n.example"},
		{"grün.example", nil, true, "from grün.example"},
		{"a\xffb", nil, true, "from a?b"},
	} {
		tx := &protocol.Transaction{Session: &protocol.Session{Hello: test.hello, RemoteAddr: test.addr}}
		tx.Mail.UTF8 = test.utf8
		if got := receivedFrom(tx); got != test.want {
			t.Errorf("%q, %v: %q, want %q", test.hello, test.addr, got, test.want)
		}
	}
}

// With the longest names that can come, the header is still one: every line within
// the 998 octets of RFC 5322 section 2.1.1, every field readable.
func TestTraceHeaderLines(t *testing.T) {
	long := strings.Repeat(`"`, 255) // each is quoted
	domain := strings.Repeat("d", 251) + ".org"
	tx := &protocol.Transaction{Session: &protocol.Session{Mode: protocol.LMTP, Hello: strings.Repeat("h", 255), RemoteAddr: &net.TCPAddr{IP: net.ParseIP("2001:db8:1111:2222:3333:4444:5555:6666")}}}
	tx.Mail.UTF8 = true
	m := &message{id: "abcdefghijk-123456", from: strings.Repeat("s", 254), received: receivedFrom(tx), with: tx.With()}
	o := tracer()
	o.Hostname = strings.Repeat("m", 255)
	r := rcptOf(long, domain)
	r.orig = strings.Repeat("o", 500)
	header := string(o.header(m, r, noon))
	for line := range strings.Lines(header) {
		if len(line) > 998 {
			t.Errorf("line of %d octets: %.40q...", len(line), line)
		}
	}
	parsed, err := mail.ReadMessage(strings.NewReader(header + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.Header.Get("Delivered-To"); got != r.addr.String() {
		t.Errorf("Delivered-To %.60q", got)
	}
	if !strings.Contains(header, "with UTF8LMTP id") {
		t.Errorf("no UTF8LMTP in %q", header)
	}
}

// Nothing in an address adds a line or a field, whichever way it came.
func FuzzTraceHeader(f *testing.F) {
	f.Add("ann@example.org", "bob", "example.org", "orig", "client")
	f.Add("a\r\nX: y", "b\nc", "d\x00", "e\xff\r", "x\ny")
	f.Fuzz(func(t *testing.T, from, local, domain, orig, hello string) {
		tx := &protocol.Transaction{Session: &protocol.Session{Hello: hello}}
		m := &message{id: "id", from: from, received: receivedFrom(tx), with: "LMTP"}
		r := rcptOf(local, domain)
		r.orig = orig
		header := string(tracer().header(m, r, noon))
		if !utf8.ValidString(header) || strings.ContainsAny(header, "\r\x00") {
			t.Errorf("%q", header)
		}
		fields := 3
		if strings.Contains(header, "\nX-Original-To: ") {
			fields = 4
		}
		names := 0
		for line := range strings.Lines(header) {
			if line[0] != '\t' {
				names++
			}
		}
		if names != fields || strings.Count(header, "\n") != fields+2 {
			t.Errorf("%d fields in %q", names, header)
		}
	})
}
