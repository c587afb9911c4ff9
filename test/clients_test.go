package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// clientMessage is for clients that send what they are given, line ends apart.
const clientMessage = "From: sender@example.net\n" +
	"To: user@example.org\n" +
	"Date: Mon, 02 Jan 2006 15:04:05 -0700\n" +
	"Message-ID: <client@example.net>\n" +
	"Subject: from a client\n" +
	"\n" +
	"Hello.\n" +
	".\n" +
	"..dots\n"

// TestClients: programs that people use to send mail complete a transaction.
func TestClients(t *testing.T) {
	t.Parallel()
	s := startPlainSite(t, "python", "swaks", "msmtp", "lmtpd")
	check := func(t *testing.T, user, helo, with string) {
		t.Helper()
		checkStored(t, oneMessage(t, s.maildir(user)), trace{
			sender: "sender@example.net", recipient: user + "@example.org", helo: helo, with: with,
		}, []byte(clientMessage))
	}
	t.Run("Python", func(t *testing.T) {
		python := need(t, "/usr/bin/python3")[0]
		const script = `
import smtplib, sys
with smtplib.LMTP(sys.argv[1], local_hostname="python.example.net") as c:
    print(c.sendmail("sender@example.net", sys.argv[2], sys.stdin.read()))
`
		if out := run(t, clientMessage, python, "-c", script, s.sock, "python@example.org"); out != "{}\n" {
			t.Errorf("refused recipients: %s", out)
		}
		check(t, "python", "python.example.net", "LMTP")
	})
	t.Run("swaks", func(t *testing.T) {
		swaks := need(t, "swaks")[0]
		// It ends the last line itself.
		out := run(t, strings.TrimSuffix(clientMessage, "\n"), swaks, "--protocol", "LMTP", "--socket", s.sock, "--helo", "swaks.example.net",
			"--from", "sender@example.net", "--to", "swaks@example.org", "--data", "-")
		if !strings.Contains(out, "<-  250 2.0.0 ") {
			t.Error(out)
		}
		check(t, "swaks", "swaks.example.net", "LMTP")
	})
	t.Run("msmtp", func(t *testing.T) {
		msmtp := need(t, "msmtp")[0]
		// A port is wanted even where it means nothing.
		run(t, clientMessage, msmtp, "--file=/dev/null", "--protocol=lmtp", "--socket="+s.sock, "--host=localhost", "--port=24",
			"--domain=msmtp.example.net", "--from=sender@example.net", "--", "msmtp@example.org")
		check(t, "msmtp", "msmtp.example.net", "LMTP")
	})
	t.Run("lmtpd send", func(t *testing.T) {
		out := run(t, clientMessage, program, "send", "-f", "sender@example.net", "--to", s.sock, "lmtpd@example.org")
		if !strings.Contains(out, "250 2.0.0 ") {
			t.Errorf("prints %q", out)
		}
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		check(t, "lmtpd", host, "LMTP")
	})
	t.Run("lmtpd send to someone unknown", func(t *testing.T) {
		cmd := exec.Command(program, "send", "--to", "unix:"+s.sock, "lmtpd@example.org", "unknown@example.org")
		cmd.Stdin = strings.NewReader("no header, no final newline")
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Error("exit status 0")
		}
		if !strings.Contains(string(out), "250 2.0.0 ") || !strings.Contains(string(out), "550 5.1.1 ") {
			t.Errorf("prints %q", out)
		}
		if n := len(messages(t, filepath.Join(s.maildir("lmtpd")))); n != 2 {
			t.Errorf("%d messages for the known recipient, want 2", n)
		}
	})
}
