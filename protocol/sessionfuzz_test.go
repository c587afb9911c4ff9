package protocol_test

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
)

// converse runs a session whose client says data in pieces of the lengths that cuts
// gives, and returns what the server said and which messages it handed over.
func converse(t testing.TB, mode protocol.Mode, policy protocol.Policy, data, cuts []byte) (string, []string) {
	return converseWith(t, &dialog{}, mode, policy, data, cuts)
}

// converseWith is converse with the settings of a dialog.
func converseWith(t testing.TB, d *dialog, mode protocol.Mode, policy protocol.Policy, data, cuts []byte) (string, []string) {
	ds := newDialogServer(t, d)
	ds.srv.Mode, ds.srv.Policy = mode, policy
	ds.srv.Limits = protocol.Limits{CommandLine: 600, MessageSize: 2000, Recipients: 5, Errors: 20, UnknownCommands: 10}
	conn := &scriptConn{}
	for _, n := range cuts {
		n := min(int(n)+1, len(data))
		conn.pieces = append(conn.pieces, bytes.Clone(data[:n]))
		data = data[n:]
	}
	conn.pieces = append(conn.pieces, bytes.Clone(data))
	ds.srv.ServeConn(context.Background(), conn)
	return conn.out.String(), ds.messages
}

var (
	anyLine   = regexp.MustCompile(`^[2345][0-9][0-9][ -][^\x00-\x1f\x7f]*$`)
	finalLine = regexp.MustCompile(`(?m)^[2345][0-9][0-9] `)
)

func checkReplies(t testing.TB, out string) {
	t.Helper()
	body, ok := strings.CutSuffix(out, "\r\n")
	if !ok {
		t.Fatalf("output ends within a line: %q", out)
	}
	for l := range strings.SplitSeq(body, "\r\n") {
		if !anyLine.MatchString(l) || len(l) > 510 {
			t.Fatalf("line %q in %q", l, out)
		}
	}
}

// FuzzSession says anything to the server, whole and in pieces: both must come to
// the same, and the server must never say anything but replies.
func FuzzSession(f *testing.F) {
	for _, d := range readDialogs(f) {
		if data := d.sent(); len(data) < maxSplit {
			f.Add(data, []byte{3, 100, 0}, len(d.settings) > 0)
		}
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte, smtp bool) {
		mode := protocol.LMTP
		if smtp {
			mode = protocol.SMTP
		}
		out, messages := converse(t, mode, dialogPolicy, data, nil)
		checkReplies(t, out)
		again, messagesAgain := converse(t, mode, dialogPolicy, data, cuts)
		if out != again {
			t.Fatalf("in one piece: %q\nin pieces: %q", out, again)
		}
		if strings.Join(messages, "|") != strings.Join(messagesAgain, "|") {
			t.Fatalf("in one piece: %q\nin pieces: %q", messages, messagesAgain)
		}
		if end := bytes.Count(data, []byte("\r\n.\r\n")) + bytes.Count(data, []byte("\n.\r\n")) + bytes.Count(bytes.ToUpper(data), []byte("BDAT")); len(messages) > end {
			t.Fatalf("%d messages of %d ends: %q", len(messages), end, messages)
		}
	})
}

// FuzzExtended does the same where everything is offered that can be.
func FuzzExtended(f *testing.F) {
	all := &dialog{settings: [][2]string{{"auth", "plaintext echo"}, {"trust", "xclient xforward"}, {"dsn", ""}, {"hook", "verbs"}, {"calls", "10"}}}
	for _, d := range readDialogs(f) {
		if data := d.sent(); len(data) < maxSplit && len(d.settings) > 0 {
			f.Add(data, []byte{3, 100, 0}, d.mode() == "smtp")
		}
	}
	f.Fuzz(func(t *testing.T, data, cuts []byte, smtp bool) {
		mode := protocol.LMTP
		if smtp {
			mode = protocol.SMTP
		}
		out, messages := converseWith(t, all, mode, dialogPolicy, data, nil)
		checkReplies(t, out)
		again, messagesAgain := converseWith(t, all, mode, dialogPolicy, data, cuts)
		if out != again || strings.Join(messages, "|") != strings.Join(messagesAgain, "|") {
			t.Fatalf("in one piece: %q, %q\nin pieces: %q, %q", out, messages, again, messagesAgain)
		}
	})
}

// FuzzCommand sends one line in each state of a session: it gets exactly one reply,
// or ends the session with its reply.
func FuzzCommand(f *testing.F) {
	for _, s := range []string{
		"NOOP", "MAIL FROM:<a@example.org> SIZE=1", `RCPT TO:<"a b"@example.org>`, "RSET", "QUIT", "HELP x", "VRFY <a>", "EHLO x", "", "\x00", "\xff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		verb := strings.ToUpper(line[:min(4, len(line))])
		if strings.Contains(line, "\n") || verb == "DATA" || verb == "BDAT" {
			return
		}
		before := []string{"LHLO client.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>"}
		for n := range len(before) + 1 {
			said := strings.Join(append(append([]string(nil), before[:n]...), line, "NOOP"), "\r\n") + "\r\n"
			out, messages := converse(t, protocol.LMTP, protocol.Policy{}, []byte(said), nil)
			checkReplies(t, out)
			if len(messages) > 0 {
				t.Fatalf("a message without DATA: %q", messages)
			}
			got, want := len(finalLine.FindAllString(out, -1)), n+3
			ended := strings.Contains(out, "\r\n221 ") || strings.Contains(out, "\r\n421 ")
			if got != want && !ended {
				t.Fatalf("%d replies to %q, want %d: %q", got, said, want, out)
			}
		}
	})
}
