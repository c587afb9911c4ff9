package protocol_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// TestMinRate: a message that trickles in is given up long before its time is over,
// though no wait for an octet of it was long.
func TestMinRate(t *testing.T) {
	client, server := net.Pipe()
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Limits: protocol.Limits{MinRate: 1 << 30}, Timeouts: protocol.Timeouts{Data: 20 * time.Millisecond}}
	served := background(func() error { return srv.ServeConn(context.Background(), server) })
	go func() {
		io.WriteString(client, "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\n")
		for {
			if _, err := io.WriteString(client, "x"); err != nil {
				return
			}
		}
	}()
	out, _ := io.ReadAll(client)
	if !strings.HasSuffix(string(out), "\r\n421 4.4.2 Timeout, closing channel\r\n") {
		t.Errorf("got %q", out)
	}
	if err := result(t, served); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ServeConn returned %v", err)
	}
}
