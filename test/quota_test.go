package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestQuotaOfTwoProcesses: with a writer process, a full mailbox is answered at RCPT and
// after the data, and whoever is to be told that it fills up is told: the user by a mail
// that the writer writes as him, a program by the front, which shares its confinement.
func TestQuotaOfTwoProcesses(t *testing.T) {
	t.Parallel()
	s := startTwoProcesses(t, "lmtpd-ann")
	state := filepath.Join(s.dir, "state")
	writeFile(t, filepath.Join(s.dir, "warning.txt"), "Subject: {percent}% full\n\n{messages} of {messages_limit}\n")
	more := fmt.Sprintf(`[mailbox]
quota_messages = 4
[[quota_warning]]
percent = 50
mail = "%[1]s/warning.txt"
command = ["/bin/sh", "-c", 'id -u >"$1"; cat %[3]s/Maildir/*/* >>"$1" 2>&1; echo "$2 $3" >>"$1"', "sh", "%[2]s/told", "{address}", "{percent}"]
`, s.dir, state, s.acc.home("lmtpd-ann"))
	for _, a := range []*agent{s.writer, s.front} {
		writeFile(t, a.config, s.config+more)
		a.signal(t, syscall.SIGHUP)
		a.awaitState(t, "RELOADING=1")
		a.awaitState(t, "READY=1")
	}
	c := dial(t, s.lmtp)
	c.expect(t, "250", "LHLO client.example.net")
	message := []byte(header + "\r\nx\r\n")
	for range 2 {
		if r := c.send(t, "", "", []string{"lmtpd-ann"}, message, 1); !strings.HasPrefix(r[0], "250 2.0.0 ") {
			t.Fatalf("%q", r)
		}
	}
	s.front.stderr.await(t, `msg="quota notice sent" mailbox=lmtpd-ann to=lmtpd-ann percent=50 by=mail file=`)
	s.front.stderr.await(t, `msg="quota notice sent" mailbox=lmtpd-ann to=lmtpd-ann percent=50 by=command file=/bin/sh`)
	told := readFile(t, filepath.Join(state, "told"))
	if !strings.HasPrefix(told, fmt.Sprintf("%d\n", mailUser(t).Uid)) || !strings.HasSuffix(told, "lmtpd-ann 50\n") || strings.Contains(told, "Subject:") || !strings.Contains(strings.ToLower(told), "permission denied") {
		t.Errorf("the program: %s", told)
	}
	box := filepath.Join(s.acc.home("lmtpd-ann"), "Maildir")
	notices := 0
	for _, m := range messages(t, box) {
		if strings.Contains(string(m.content), "\nSubject: 50% full\n") {
			notices++
			if !strings.Contains(string(m.content), "\n\n2 of 4\n") || !strings.HasPrefix(string(m.content), "Return-Path: <>\n") {
				t.Errorf("%s", m.content)
			}
		}
	}
	info, err := os.Stat(filepath.Join(box, "maildirsize"))
	if err != nil || info.Sys().(*syscall.Stat_t).Uid != firstAccount {
		t.Errorf("maildirsize: %v, %v", info, err)
	}
	if notices != 1 {
		t.Errorf("%d mails to the user", notices)
	}
	// Two messages and the notice: one more fits.
	if r := c.send(t, "", "", []string{"lmtpd-ann"}, message, 1); !strings.HasPrefix(r[0], "250 2.0.0 ") {
		t.Errorf("%q", r)
	}
	c.expect(t, "250", "MAIL FROM:<> SIZE=100")
	c.expect(t, "452 4.2.2", "RCPT TO:<lmtpd-ann>")
	c.expect(t, "221", "QUIT")

	// As root, over all accounts of the machine.
	get := append(s.acc.within[:len(s.acc.within):len(s.acc.within)], program, "quota", "get", "-c", s.front.config, "--json")
	if out := run(t, "", get[0], append(get[1:], "lmtpd-ann")...); !strings.Contains(out, `"messages":4,"messages_limit":4,"counted":false,"refused_since":"`) {
		t.Errorf("%s", out)
	}
	s.front.stop(t)
	s.writer.stop(t)
}

// TestQuotaProgress: the bar over all users is shown on a terminal, and nowhere else.
func TestQuotaProgress(t *testing.T) {
	t.Parallel()
	need(t, "script")
	s := startPlainSite(t, "one", "two", "three")
	for _, what := range []string{"recalc", "get"} {
		command := "TERM=xterm " + program + " quota " + what + " --all -c " + s.agent.config
		out := run(t, "", "script", "-qec", command, "/dev/null")
		bar := regexp.MustCompile(`\r\[#{30}\] 100%  3 of 3 users\x1b\[K\r\x1b\[K`)
		if !bar.MatchString(out) {
			t.Errorf("%s on a terminal: %q", what, out)
		}
		if out := run(t, "", program, "quota", what, "--all", "-c", s.agent.config); strings.ContainsAny(out, "\r\x1b#") || out == "" {
			t.Errorf("%s: %q", what, out)
		}
	}
	s.stop(t)
}
