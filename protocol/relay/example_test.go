package relay_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/protocol/relay"
)

// Mail for lists goes to Mailman's LMTP runner, all other mail to the next server, as
// MailmanProxy of Python's smtpd did it.
func ExampleRelay() {
	// In the place of Mailman, and of the server for the rest.
	mailman, mailbox := protocoltest.NewRecorder(), protocoltest.NewRecorder()
	runner, host := protocoltest.NewLMTPServer(mailman), protocoltest.NewServer(mailbox)
	defer runner.Close()
	defer host.Close()

	lists := map[string]bool{"ant": true}
	isList := func(r *protocol.Recipient) bool {
		name := strings.ToLower(r.Path.Local)
		for _, end := range []string{"-admin", "-owner", "-request", "-join", "-leave"} {
			name = strings.TrimSuffix(name, end)
		}
		return lists[name]
	}
	toMailman := &relay.Relay{Mode: protocol.LMTP, Network: runner.Network, Addr: runner.Addr}
	toHost := &relay.Relay{Mode: protocol.SMTP, Network: host.Network, Addr: host.Addr}
	srv := protocoltest.NewLMTPServer(protocol.Split(isList, toMailman, toHost))
	defer srv.Close()

	var t testing.T
	c := srv.Dial(&t)
	c.Hello("LHLO")
	c.Send("ann@example.org", []string{"ant@example.org", "bob@example.org", "ant-join@example.org"}, "Subject: hello\r\n\r\n", 3)
	m, _ := mailman.Wait(context.Background(), 1)
	fmt.Println("Mailman:", m[0].Rcpts)
	m, _ = mailbox.Wait(context.Background(), 1)
	fmt.Println("the rest:", m[0].Rcpts)
	// Output:
	// Mailman: [ant@example.org ant-join@example.org]
	// the rest: [bob@example.org]
}
