package protocol_test

import (
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

func TestLMTPTransaction(t *testing.T) {
	rec := protocoltest.NewRecorder()
	rec.Reply = func(tx *protocol.Transaction, i int) protocol.Reply {
		if i == 1 {
			return protocol.Reply{Code: 452, Enhanced: protocol.Enhanced{4, 2, 2}, Text: "full"}
		}
		return protocol.Reply{}
	}
	srv := protocoltest.NewLMTPServer(rec)
	defer srv.Close()
	c := srv.Dial(t)
	c.Hello("LHLO")
	got := c.Send("a@example.org", []string{"b@example.org", "c@example.org", "b@example.org"}, "Subject: x\r\n\r\n.dot\r\n", 3)
	want := []string{"250 2.0.0 OK", "452 4.2.2 full", "250 2.0.0 OK"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("reply %d: got %q, want %q", i, got[i], want[i])
		}
	}
	if m := rec.Messages(); len(m) != 1 || string(m[0].Body) != "Subject: x\r\n\r\n.dot\r\n" {
		t.Errorf("got messages %q", m)
	}
	c.Cmd("221 2.0.0 Bye", "QUIT")
	c.EOF()
}
