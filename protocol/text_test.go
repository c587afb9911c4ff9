package protocol_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// TestText: whole messages with LF; octets outside of ASCII where SMTPUTF8 is offered.
func TestText(t *testing.T) {
	var texts []string
	h := protocol.Text(func(_ context.Context, text string, tx *protocol.Transaction) error {
		texts = append(texts, text)
		if tx.From.Local == "refused" {
			return protocol.Replyf(554, protocol.Enhanced{5, 7, 1}, "no")
		}
		return nil
	})
	for _, utf8 := range []bool{true, false} {
		texts = nil
		srv := protocoltest.NewUnstartedServer(protocol.SMTP, h)
		srv.Config.Newlines = protocol.NewlinesPreserve
		if !utf8 {
			srv.Config.Ext = protocol.DefaultExt &^ protocol.ExtSMTPUTF8
		}
		srv.Start()
		c := srv.Dial(t)
		c.Hello("EHLO")
		send := func(from, body, want string) {
			t.Helper()
			if r := c.Send(from, []string{"b@example.org"}, body, 1); r[0] != want {
				t.Errorf("UTF-8 %v: %q: %q, want %q", utf8, body, r, want)
			}
		}
		const ok = "250 2.0.0 OK"
		want := []string{"a: b\n\nx\n", "", "a\rb\nc", "y"}
		send("a@example.org", "a: b\r\n\r\nx\r\n\r\n", ok)
		send("a@example.org", "", ok)
		send("a@example.org", "a\rb\nc\r\n", ok)
		send("refused@example.org", "y\r\n", "554 5.7.1 no")
		if utf8 {
			want = append(want, "gr\xc3\xbc\xdfe") // what is no UTF-8 survives
			send("a@example.org", "gr\xc3\xbc\xdfe\r\n", ok)
		} else {
			send("a@example.org", "gr\xc3\xbc\xc3\x9fe\r\n", "500 5.6.1 Error: strict ASCII mode")
		}
		if !slices.Equal(texts, want) {
			t.Errorf("UTF-8 %v: texts %q, want %q", utf8, texts, want)
		}
		srv.Close()
	}
	// Outside of a session there is nothing to be strict about, and what breaks off is
	// no message.
	tx := &protocol.Transaction{}
	if err := h.Deliver(t.Context(), tx, protocol.NewBody(failing{})); err == nil {
		t.Error("a message that breaks off was taken")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("as the test asks for") }
