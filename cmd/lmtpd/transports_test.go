package main

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// A reload leaves transports alone that stay what they are: their limits would add up.
func TestTransportsOutliveReload(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	load := func(hostname, timeout string, parallel int) *config {
		return loadText(t, fmt.Sprintf(`
hostname = %q
[[transport]]
name = "unix"
type = "relay"
hosts = ["unix:/run/next"]
timeout = %q
[[transport]]
name = "tls"
type = "relay"
hosts = ["tcp:192.0.2.1:24"]
tls = "required"
ca_file = %q
[[transport]]
name = "program"
type = "pipe"
command = ["/bin/true"]
parallel = %d
`, hostname, timeout, ca, parallel))
	}
	certificate := func() {
		t.Helper()
		srv := protocoltest.NewTLSServer(protocol.Discard)
		defer srv.Close()
		if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	certificate()
	var before map[string]delivery.Transport
	for _, step := range []struct {
		what    string
		c       *config
		changed map[string]bool
	}{
		{"start", load("a.example.org", "5m", 20), map[string]bool{"unix": true, "tls": true, "program": true}},
		{"nothing", load("a.example.org", "5m", 20), nil},
		{"timeout", load("a.example.org", "4m", 20), map[string]bool{"unix": true}},
		{"parallel", load("a.example.org", "4m", 10), map[string]bool{"program": true}},
		{"hostname", load("b.example.org", "4m", 10), map[string]bool{"unix": true, "tls": true}},
		{"certificate", load("b.example.org", "4m", 10), map[string]bool{"tls": true}},
	} {
		if step.what == "certificate" {
			certificate()
		}
		step.c.former = before
		made, err := step.c.buildTransports(log)
		if err != nil {
			t.Fatal(err)
		}
		for name, now := range made.Named {
			if changed := now != before[name]; changed != step.changed[name] {
				t.Errorf("%s: %s changed: %v", step.what, name, changed)
			}
		}
		before = made.Named
	}
}
