package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// nowhere takes copies and writes none of them.
type nowhere struct{}

func (nowhere) Deliver(_ context.Context, b maildir.Body, targets []maildir.Target, done func(int, maildir.Result)) {
	for i := range targets {
		done(i, maildir.Result{Size: b.Size + int64(len(targets[i].Header))})
	}
}

// BenchmarkAgent is what a delivery costs from the first octet of a message of 4 KiB
// to the last reply: over a Unix socket with the real writer to a file system in
// memory, and with one that writes nothing.
func BenchmarkAgent(b *testing.B) {
	for _, rcpts := range []int{1, 50} {
		for _, writer := range []string{"maildir", "nowhere"} {
			for _, remember := range []bool{false, true} {
				b.Run(fmt.Sprintf("rcpts=%d/writer=%s/redelivery=%v", rcpts, writer, remember), func(b *testing.B) {
					var users []string
					for i := range rcpts {
						users = append(users, fmt.Sprintf("user%d", i))
					}
					s := newSite(b, users...)
					s.agent.Report = nil
					s.agent.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
					if writer == "nowhere" {
						s.agent.Writer = nowhere{}
					}
					if remember {
						s.agent.Redelivery = openRedelivery(b, s.state, RedeliveryOptions{})
					}
					s.start(b)
					benchmarkSession(b, s, users)
				})
			}
		}
	}
}

func benchmarkSession(b *testing.B, s *site, users []string) {
	c := s.client(b)
	envelope := "MAIL FROM:<ann@example.org>\r\n"
	for _, u := range users {
		envelope += "RCPT TO:<" + u + "@example.org>\r\n"
	}
	data := []byte(envelope + "DATA\r\n")
	body := []byte("Received: from a by b with ESMTP id 4XyZ; Sun, 1 Nov 2026 12:00:00 +0100\r\nMessage-ID: <1@example.org>\r\nSubject: x\r\n\r\n" +
		strings.Repeat("0123456789 0123456789 0123456789 0123456789 0123456789 01234\r\n", 64) + ".\r\n")
	replies := make([]byte, 64<<10)
	expect := func(lines int) {
		for lines > 0 {
			n, err := c.Conn().Read(replies)
			if err != nil {
				b.Fatal(err)
			}
			lines -= strings.Count(string(replies[:n]), "\n")
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := c.Conn().Write(data); err != nil {
			b.Fatal(err)
		}
		expect(2 + len(users))
		if _, err := c.Conn().Write(body); err != nil {
			b.Fatal(err)
		}
		expect(len(users))
		n += len(users)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/delivery")
}
