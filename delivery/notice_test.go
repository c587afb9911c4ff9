package delivery

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

const noticeText = "Subject: Your mailbox is {percent}% full\nX-Used: {used}\n of {limit}\nAuto-Submitted: no\n\nDear {user},\n{octets} of {octets_limit}, {messages} of {messages_limit} for {address}: gr\u00fc\u00dfe.\n"

func parseNotice(t *testing.T, text string) *NoticeText {
	t.Helper()
	n, err := ParseNoticeText([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// submit delivers a message to bob, waits for the notices about it, and checks the reply.
func submit(t *testing.T, s *site, message, want string) {
	t.Helper()
	message = strings.ReplaceAll(message, "\r\n", "\n")
	out, err := s.agent.Submit(t.Context(), Envelope{Rcpts: []string{"bob@example.org"}}, strings.NewReader(message))
	if err != nil || !strings.HasPrefix(out[0].Reply.Error(), want) {
		t.Fatalf("%+v, %v, want %s", out, err, want)
	}
	s.agent.Wait()
}

// TestNoticeMail: one mail for each time that a mailbox goes past the threshold, into
// the mailbox itself, in spite of filing rules and of the quota, and none about itself.
func TestNoticeMail(t *testing.T) {
	s := newSite(t, "bob")
	s.agent.Quota = &QuotaPolicy{
		Octets: 2000, Notices: []QuotaNotice{{At: 50, Mail: parseNotice(t, noticeText)}, {At: 95, Mail: parseNotice(t, "Subject: 95\n\nx\n")}},
	}
	s.agent.Folders.Rules = []FilingRule{{Field: "Auto-Submitted", Value: "*", Folder: "Robots", Create: true}}
	body := hello + strings.Repeat("0123456789\r\n", 75)
	submit(t, s, body, "250 2.0.0") // passes 50 %
	s.agent.Wait()
	box := read(t, s.maildir("bob"))
	if len(box) != 2 {
		t.Fatalf("%d messages: %q", len(box), box)
	}
	slices.SortFunc(box, func(a, b string) int { return strings.Count(a, "hello") - strings.Count(b, "hello") })
	mail := box[0]
	head, text, _ := strings.Cut(mail, "\n\n")
	for _, want := range []string{
		"Return-Path: <>\n", "Delivered-To: bob@example.org\n", "\nReceived: (quota notice)\n", "\nFrom: Mail Delivery System <MAILER-DAEMON@mx.example.org>\n",
		"\nTo: <bob@example.org>\n", "\nSubject: Your mailbox is 50% full\n", "\nAuto-Submitted: auto-generated\n", "\n of 2.0 KiB\n", "\nMIME-Version: 1.0\n",
		"charset=utf-8\n", "\nMessage-ID: <", "\nDate: ",
	} {
		if !strings.Contains(head+"\n", want) {
			t.Errorf("no %q in\n%s", want, head)
		}
	}
	if strings.Contains(head, "Auto-Submitted: no") || !strings.Contains(text, " of 2000, 1 of 0 for bob@example.org: gr\u00fc\u00dfe.\n") || !strings.HasPrefix(text, "Dear bob@example.org,\n") {
		t.Errorf("%s", mail)
	}
	// The notice has filled the mailbox: it counts, and there is no room for more.
	log := s.log.String()
	if strings.Count(log, "quota notice sent") != 1 || !strings.Contains(log, "percent=50") {
		t.Error(log)
	}
	sizes, err := os.ReadFile(filepath.Join(s.maildir("bob"), "maildirsize"))
	if err != nil || strings.Count(string(sizes), "\n") != 4 {
		t.Errorf("%q, %v", sizes, err)
	}
	// Below the threshold and past it again.
	if err := os.RemoveAll(s.maildir("bob")); err != nil {
		t.Fatal(err)
	}
	submit(t, s, hello, "250 2.0.0")
	s.agent.Wait()
	if n := len(read(t, s.maildir("bob"))); n != 1 {
		t.Errorf("%d messages below the threshold", n)
	}
	submit(t, s, body+"x\r\n", "250 2.0.0")
	s.agent.Wait()
	if n := len(read(t, s.maildir("bob"))); n != 3 {
		t.Errorf("%d messages past the threshold", n)
	}
}

// A mailbox that goes over its quota with one message gets the notice all the same.
func TestNoticeInFullMailbox(t *testing.T) {
	s := newSite(t, "bob")
	s.agent.Quota = &QuotaPolicy{Octets: 500, Grace: true, Notices: []QuotaNotice{{At: 100, Mail: parseNotice(t, "Subject: full\n\nx\n")}}}
	body := hello + strings.Repeat("0123456789\r\n", 100)
	submit(t, s, body, "250 2.0.0")
	if box := read(t, s.maildir("bob")); len(box) != 2 {
		t.Errorf("%q, log %s", box, s.log.String())
	}
	submit(t, s, hello, "452 4.2.2")
	if box := read(t, s.maildir("bob")); len(box) != 2 {
		t.Errorf("%q", box)
	}
}

// However many deliveries come at once, one of them goes past the threshold.
func TestNoticeOnce(t *testing.T) {
	s := newSite(t, "bob")
	var mu sync.Mutex
	var warned []QuotaWarning
	s.agent.Quota = &QuotaPolicy{Messages: 40, Thresholds: []int{50}, Warn: func(w QuotaWarning) {
		mu.Lock()
		defer mu.Unlock()
		warned = append(warned, w)
	}}
	submit(t, s, hello, "250 2.0.0") // while maildirsize is made, its lines are not in order
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 5 {
				out, err := s.agent.Submit(t.Context(), Envelope{Rcpts: []string{"bob@example.org"}}, strings.NewReader(hello))
				if err != nil || !out[0].Reply.OK() {
					t.Errorf("%+v, %v", out, err)
				}
			}
		})
	}
	all.Wait()
	if len(warned) != 1 || warned[0].Usage.Messages != 20 {
		t.Errorf("%+v", warned)
	}
}

// A program gets what it needs as arguments; what goes wrong with it is in the log.
func TestNoticeCommand(t *testing.T) {
	s := newSite(t, "bob")
	dir, err := os.MkdirTemp("", "notice")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	runner := &command.Runner{}
	if os.Geteuid() == 0 {
		runner.Account = &command.Account{UID: 64101, GID: 64201}
	}
	s.agent.Quota = &QuotaPolicy{Messages: 10, Commands: runner, Notices: []QuotaNotice{
		{At: 10, Command: []string{"/bin/sh", "-c", `echo "$@" >` + out, "sh", "{address}", "{percent}", "{messages}/{messages_limit}"}},
		{At: 20, Command: []string{"/bin/sh", "-c", "echo no such thing >&2; exit 7"}},
	}}
	for range 3 {
		submit(t, s, hello, "250 2.0.0")
		s.agent.Wait()
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "bob@example.org 10 1/10\n" {
		t.Errorf("%q, %v", got, err)
	}
	if log := s.log.String(); strings.Count(log, "quota notice sent") != 1 || strings.Count(log, `exit status 7, it said \"no such thing\\n\"`) != 1 {
		t.Error(log)
	}
}

// No more than some are on their way, and an address is no option.
func TestNoticeBounds(t *testing.T) {
	log := &lockedBuffer{}
	s := newSite(t, "bob")
	s.agent.Log = slog.New(slog.NewTextHandler(log, nil))
	var failed []string
	s.agent.Noticed = func(by string, err error) {
		if err != nil {
			failed = append(failed, by)
		}
	}
	s.agent.Quota = &QuotaPolicy{Notices: []QuotaNotice{{At: 50, Command: []string{"/bin/true", "{address}"}}}, Commands: &command.Runner{Account: &command.Account{UID: 1, GID: 1}}}
	w := &QuotaWarning{User: &userdb.User{Name: "bob"}, Address: "-x@example.org", Percent: 50}
	s.agent.notify(w, nil, nil)
	s.agent.Wait()
	s.agent.notices.now.Store(maxNotices)
	s.agent.notify(w, nil, nil)
	s.agent.notices.now.Store(0)
	s.agent.Quota.Commands = nil
	s.agent.notify(w, nil, nil)
	s.agent.Wait()
	if len(failed) != 3 {
		t.Errorf("told of %q", failed)
	}
	for _, want := range []string{"would be taken for an option", "64 are on their way", "no program may be run"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, log.String())
		}
	}
}

func TestNoticeText(t *testing.T) {
	w := &QuotaWarning{User: &userdb.User{Name: "bob"}, Address: "bob@example.org", Percent: 90, Usage: maildir.Usage{Octets: 1536}, Limit: maildir.Quota{Octets: 2048}}
	now := time.Date(2024, 3, 1, 10, 0, 0, 0, time.UTC)
	n := parseNotice(t, "From: Post <post@example.org>\r\nSubject: Gr\u00fc\u00dfe an {address}\r\n\r\n{{used} {used}\r\n")
	got, err := n.message(w, "mx.example.org", "id", now, true)
	want := "To: <bob@example.org>\r\nDate: Fri, 1 Mar 2024 10:00:00 +0000\r\nMessage-ID: <id.quota@mx.example.org>\r\nFrom: Post <post@example.org>\r\n" +
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe_an_bob@example.org?=\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n" +
		"Content-Transfer-Encoding: 8bit\r\n\r\n{used} 1.5 KiB\r\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v\nwant %q", got, err, want)
	}
	for text, want := range map[string]string{
		"":                              "line 1 is no header field",
		"Hello,\n\nyour mailbox":        "line 1 is no header field",
		"X: y\n\nz\n":                   "no header field Subject",
		"Subject: {x}\n\n":              "{x} is not known; there are {address}, {user}",
		"Subject: x\n\n{percent":        "is not known",
		"Subject: \xff\n\n":             "not in UTF-8",
		"Subject: x\n\n\x00":            "not in UTF-8",
		strings.Repeat("x", 1<<17):      "more than 65536 octets",
		"Subject: x\nno field\n\nHello": "line 2 is no header field; the text follows after an empty line",
		" x\nSubject: x\n\n":            "line 1",
	} {
		if _, err := ParseNoticeText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
	// An address cannot add fields.
	w.Address = "bob@example.org>\nBcc: eve@example.org"
	if got, err := n.message(w, "mx", "id", now, false); err != nil || strings.Contains(string(got), "\nBcc") {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzNoticeText(f *testing.F) {
	f.Add([]byte(noticeText))
	f.Add([]byte("Subject: {percent}\n\n{{\n"))
	w := &QuotaWarning{User: &userdb.User{Name: "bob"}, Address: "bob@example.org", Percent: 90}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := ParseNoticeText(text)
		if err != nil {
			return
		}
		got, err := n.message(w, "mx.example.org", "id", time.Unix(0, 0), false)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		head, _, ok := strings.Cut(string(got), "\n\n")
		if !ok || strings.Count(head, "\nAuto-Submitted: auto-generated") != 1 {
			t.Errorf("%q: %q", text, got)
		}
	})
}

func TestRoughSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 3 << 50: "3072.0 TiB"} {
		if got := RoughSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
