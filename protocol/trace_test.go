package protocol_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// traced collects what a Trace is told.
type traced struct {
	commands, messages []string
	wire               strings.Builder
}

func (c *traced) trace() *protocol.Trace {
	return &protocol.Trace{
		Command: func(_ *protocol.Session, verb, arg string, r protocol.Reply, _ time.Duration) {
			c.commands = append(c.commands, fmt.Sprintf("%s %q %d", verb, arg, r.Code))
		},
		Message: func(tx *protocol.Transaction, size int64, results []protocol.Reply, _ time.Duration) {
			c.messages = append(c.messages, fmt.Sprint(tx.From, size, results))
		},
		Wire: func(_ *protocol.Session, dir protocol.Direction, line []byte) {
			for l := range strings.SplitSeq(strings.TrimSuffix(string(line), "\r\n"), "\r\n") {
				fmt.Fprintf(&c.wire, "%c %s\n", dir, l)
			}
		},
	}
}

func TestTrace(t *testing.T) {
	var c traced
	ds := newDialogServer(t, &dialog{settings: [][2]string{{"auth", "plaintext"}}})
	ds.srv.Trace = c.trace()
	ds.srv.Ext = protocol.ExtEnhanced
	talk(ds.srv, "LHLO x\r\nAUTH PLAIN AGpvZQB3cm9uZw==\r\nAUTH LOGIN am9l\r\nc2VjcmV0\r\nnoop  a b \r\n"+
		"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<full@example.org>\r\nRCPT TO:<unknown@example.org>\r\nDATA\r\nx\r\n.\r\n"+
		"MAIL FROM:<c@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nhalf a mess")
	wantCommands := []string{
		`LHLO "x" 250`, `AUTH "PLAIN ***" 535`, `AUTH "LOGIN ***" 235`, `NOOP "a b" 250`,
		`MAIL "FROM:<a@example.org>" 250`, `RCPT "TO:<b@example.org>" 250`, `RCPT "TO:<full@example.org>" 250`, `RCPT "TO:<unknown@example.org>" 550`,
		`DATA "" 250`, `MAIL "FROM:<c@example.org>" 250`, `RCPT "TO:<b@example.org>" 250`, `DATA "" 354`,
	}
	if !slices.Equal(c.commands, wantCommands) {
		t.Errorf("commands:\n%s\nwant:\n%s", strings.Join(c.commands, "\n"), strings.Join(wantCommands, "\n"))
	}
	wantMessages := []string{"a@example.org 3 [250 2.0.0 OK 452 4.2.2 Mailbox full]", "c@example.org 11 []"}
	if !slices.Equal(c.messages, wantMessages) {
		t.Errorf("messages %q, want %q", c.messages, wantMessages)
	}
	wantWire := `> 220 mx.example.org LMTP ready
< LHLO x
> 250-mx.example.org
> 250-SMTPUTF8
> 250-ENHANCEDSTATUSCODES
> 250 AUTH LOGIN PLAIN
< AUTH PLAIN ***
> 535 5.7.8 Authentication credentials invalid
< AUTH LOGIN ***
> 334 UGFzc3dvcmQA
< ***
> 235 2.7.0 Authentication successful
< noop  a b 
> 250 2.0.0 {User:joe Authzid: Mechanism:LOGIN Value:<nil>}
< MAIL FROM:<a@example.org>
> 250 2.1.0 OK
< RCPT TO:<b@example.org>
> 250 2.1.5 OK
< RCPT TO:<full@example.org>
> 250 2.1.5 OK
< RCPT TO:<unknown@example.org>
> 550 5.1.1 No such user
< DATA
> 354 End data with <CR><LF>.<CR><LF>
> 250 2.0.0 OK
> 452 4.2.2 Mailbox full
< MAIL FROM:<c@example.org>
> 250 2.1.0 OK
< RCPT TO:<b@example.org>
> 250 2.1.5 OK
< DATA
> 354 End data with <CR><LF>.<CR><LF>
`
	if got := c.wire.String(); got != wantWire {
		t.Errorf("wire:\n%s\nwant:\n%s", got, wantWire)
	}
	want := protocol.Stats{
		Connections: 1, Transactions: 2, Messages: 1, Octets: 3, Accepted: 1, Deferred: 1, Recipients: 3, RefusedRcpts: 1, Errors: 1,
	}
	if got := ds.srv.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestStats(t *testing.T) {
	ds := newDialogServer(t, &dialog{settings: [][2]string{{"mode", "smtp"}}})
	ds.srv.Limits.Sessions = 1
	talk(ds.srv, "EHLO x\r\nMAIL FROM:<bug@e>\r\nRCPT TO:<b@e>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<a@e>\r\nRCPT TO:<gone@e>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<panic@e>\r\n")
	want := protocol.Stats{
		Connections: 1, Transactions: 2, Messages: 2, Octets: 6, Deferred: 1, Rejected: 1, Recipients: 2, Panics: 2,
	}
	if got := ds.srv.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}
