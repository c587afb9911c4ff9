package test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
)

// TestPostfixReload: a reload in the middle of traffic delays no message, not even
// where Postfix keeps its connections, as it does unless told otherwise.
func TestPostfixReload(t *testing.T) {
	t.Parallel()
	s := startVirtualSiteWith(t, []string{"user"}, contrib(t, "main.cf.virtual", "/run/lmtpd", "RUN"),
		contrib(t, "master.cf", "  -o lmtp_connection_cache_on_demand=no\n", ""))
	const senders, each = 4, 25
	ids := make(chan string, senders*each)
	var all sync.WaitGroup
	for range senders {
		c := dial(t, s.addr)
		c.expect(t, "250", "EHLO client.example.net")
		all.Go(func() {
			for i := range each {
				// Not t.Fatal, which is for the test's own goroutine only.
				message := fmt.Appendf(nil, "%s\r\n%d\r\n", header, i)
				c.write(t, []byte("MAIL FROM:<sender@example.net>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"))
				c.reply(t)
				c.reply(t)
				c.reply(t)
				c.body(t, message)
				ids <- queueID(t, c.reply(t))
			}
		})
	}
	go func() {
		all.Wait()
		close(ids)
	}()
	sent := 0
	for id := range ids {
		sent++
		if sent%5 == 0 {
			s.agent.signal(t, syscall.SIGHUP)
			s.agent.awaitState(t, "RELOADING=1")
			s.agent.awaitState(t, "READY=1")
		}
		s.log.await(t, `: `+id+`: to=<user@example\.org>`)
	}
	for _, late := range s.log.find(`status=(deferred|bounced).*`) {
		t.Error(late[0])
	}
	if n := len(messages(t, s.maildir("user"))); n != sent {
		t.Errorf("%d messages, want %d", n, sent)
	}
}
