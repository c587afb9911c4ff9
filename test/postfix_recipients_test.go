package test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestPostfixRecipients sends one message to 50 recipients: most take it, some
// do not exist, some live on a full file system. Each gets what is its own.
func TestPostfixRecipients(t *testing.T) {
	t.Parallel()
	needRoot(t, "mount a tmpfs")
	var good, full, unknown []string
	for i := range 50 {
		switch {
		case i%10 == 3:
			unknown = append(unknown, fmt.Sprintf("unknown%d", i))
		case i%10 == 7:
			full = append(full, fmt.Sprintf("full%d", i))
		default:
			good = append(good, fmt.Sprintf("user%d", i))
		}
	}
	s := startVirtualSite(t, slices.Concat(good, full, []string{"sender"}), "")
	var rcpts []string
	for _, u := range slices.Concat(good, full, unknown) {
		rcpts = append(rcpts, u+"@example.org")
	}
	slices.Sort(rcpts) // mixed
	var fillers []string
	for _, u := range full {
		fillers = append(fillers, fillTmpfs(t, s.home(u), s.owner))
	}

	message := []byte(header + "\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1000))
	const sender = "sender@example.org"
	id := s.submit(t, sender, "", rcpts, message)
	check := func(user string) {
		t.Helper()
		h := s.trace(id, sender, append([]string{user + "@example.org"}, rcpts...)...)
		checkStored(t, oneMessage(t, s.maildir(user)), h, message)
	}
	// Postfix is through with a first attempt when it has sent the bounce.
	bounce := s.log.await(t, `: `+id+`: sender non-delivery notification: (\w+)`)[1]
	s.gone(t, bounce)
	got := s.deliveries(id)
	if len(got) != len(rcpts) {
		t.Errorf("%d deliveries, want %d", len(got), len(rcpts))
	}
	for _, d := range got {
		user := strings.TrimSuffix(d.to, "@example.org")
		switch {
		case slices.Contains(unknown, user):
			if d.status != "bounced" || d.dsn != "5.1.1" || !strings.Contains(d.reason, "said: 550 5.1.1") {
				t.Errorf("%+v", d)
			}
		case slices.Contains(full, user):
			if d.status != "deferred" || d.dsn != "4.3.1" || !strings.Contains(d.reason, "said: 452 4.3.1") {
				t.Errorf("%+v", d)
			}
			if n := len(messages(t, s.maildir(user))); n != 0 {
				t.Errorf("%s: %d messages on a full file system", user, n)
			}
		default:
			if d.status != "sent" || d.dsn != "2.0.0" || !strings.HasPrefix(d.reason, "250 2.0.0") {
				t.Errorf("%+v", d)
			}
			check(user)
		}
	}

	// The bounce comes back through lmtpd.
	m := oneMessage(t, s.maildir("sender"))
	want := trace{recipient: sender, helo: "mta.example.org", with: "LMTP"}
	if !regexp.MustCompile(want.pattern()).Match(m.content) {
		t.Errorf("the bounce begins\n%.500s", m.content)
	}
	for _, u := range unknown {
		if !bytes.Contains(m.content, []byte("Final-Recipient: rfc822; "+u+"@example.org\n")) {
			t.Errorf("the bounce does not mention %s", u)
		}
	}
	if n := bytes.Count(m.content, []byte("\nFinal-Recipient:")); n != len(unknown) {
		t.Errorf("the bounce is about %d recipients, want %d", n, len(unknown))
	}

	// Room is made.
	for _, f := range fillers {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	s.flush(t)
	s.gone(t, id)
	for _, user := range slices.Concat(good, full) {
		check(user) // and still one copy only where it was delivered at once
	}
}

// fillTmpfs mounts a small tmpfs on dir and fills it to the last page with a
// file, whose name it returns.
func fillTmpfs(t *testing.T, dir string, owner *syscall.Credential) string {
	t.Helper()
	options := fmt.Sprintf("size=256k,mode=700,uid=%d,gid=%d", owner.Uid, owner.Gid)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		if errors.Is(err, syscall.EPERM) {
			t.Skip("mounting is not allowed here")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling %s: %v", dir, err)
	}
	return filler
}
