package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"github.com/emersion/go-maildir"
)

// stored is a message as a mail reader finds it.
type stored struct {
	name    string // file name without directory and flags
	content []byte
}

// messages returns all messages of a Maildir, read by go-maildir, after
// checking what holds for each: modes, and sizes in names that tell the truth.
// A Maildir that does not exist has no messages.
func messages(t *testing.T, dir string) []stored {
	t.Helper()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d := maildir.Dir(dir)
	if _, err := d.Unseen(); err != nil {
		t.Fatal(err)
	}
	seen, err := d.Messages()
	if err != nil {
		t.Fatal(err)
	}
	all := make([]stored, len(seen))
	for i, m := range seen {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		all[i] = stored{m.Key(), content}
		checkName(t, all[i])
		checkMode(t, m.Filename(), 0o600)
	}
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		checkMode(t, filepath.Join(dir, sub), 0o700)
	}
	litter, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil || len(litter) > 0 {
		t.Errorf("%s/tmp: %v %v", dir, litter, err)
	}
	return all
}

// oneMessage is messages where there must be exactly one.
func oneMessage(t *testing.T, dir string) stored {
	t.Helper()
	all := messages(t, dir)
	if len(all) != 1 {
		t.Fatalf("%s: %d messages, want 1", dir, len(all))
	}
	return all[0]
}

// nameFormat: seconds.unique.host,S=size,W=size with CRLF.
var nameFormat = regexp.MustCompile(`^[0-9]+\.[A-Za-z0-9_]+\.[^,:/]+,S=([0-9]+),W=([0-9]+)$`)

func checkName(t *testing.T, m stored) {
	t.Helper()
	f := nameFormat.FindStringSubmatch(m.name)
	if f == nil {
		t.Errorf("file name %q", m.name)
		return
	}
	crlf := len(m.content) + bytes.Count(m.content, []byte("\n")) - bytes.Count(m.content, []byte("\r\n"))
	if f[1] != strconv.Itoa(len(m.content)) || f[2] != strconv.Itoa(crlf) {
		t.Errorf("file name %q, but S=%d W=%d", m.name, len(m.content), crlf)
	}
}

func checkMode(t *testing.T, name string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != want {
		t.Errorf("%s: mode %o, want %o", name, info.Mode().Perm(), want)
	}
}

// asStored is a message from the wire as a Maildir holds it: lines end in LF.
func asStored(message []byte) []byte {
	return bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n"))
}

// trace is what lmtpd writes before a message.
type trace struct {
	sender    string // Return-Path
	recipient string // Delivered-To
	original  string // X-Original-To; "" where the client did not say
	helo      string
	with      string // LMTP, UTF8LMTP, ...
	then      string // pattern of what another program then put before the message
}

// pattern matches the header lines, and nothing more, from the first octet.
func (h trace) pattern() string {
	q := regexp.QuoteMeta
	p := `\AReturn-Path: <` + q(h.sender) + ">\n"
	if h.original != "" {
		p += "X-Original-To: " + q(h.original) + "\n"
	}
	p += "Delivered-To: " + q(h.recipient) + "\n" +
		// RFC 5321 section 4.4; date-time is that of RFC 5322.
		`Received: from ` + q(h.helo) + `\n` +
		`\tby mx\.example\.org \(lmtpd\) with ` + q(h.with) + ` id [^\s;()]+\n` +
		`\tfor <` + q(h.recipient) + `>; ` + date + "\n"
	return p + h.then
}

const date = `[A-Z][a-z]{2}, [ 0-9]?[0-9] [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [-+][0-9]{4}(?: \([A-Z]+\))?`

// checkStored compares a stored message octet by octet: lmtpd's trace header,
// then the message as it was sent.
func checkStored(t *testing.T, m stored, h trace, message []byte) {
	t.Helper()
	head := regexp.MustCompile(h.pattern()).Find(m.content)
	if head == nil {
		t.Errorf("header of %s is not\n%s\nit begins\n%.1000q", m.name, h.pattern(), m.content)
		return
	}
	if diff := firstDifference(m.content[len(head):], asStored(message)); diff != "" {
		t.Errorf("%s: after the trace header %s", m.name, diff)
	}
}

// firstDifference shows where two byte strings part; "" if they are equal.
func firstDifference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	return fmt.Sprintf("octet %d (of %d, want %d): %.80q, want %.80q", at, len(got), len(want), got[at:], want[at:])
}

// makeMaildir makes an empty one, as the owner's mail reader would.
func makeMaildir(t *testing.T, dir string, owner *syscall.Credential) {
	t.Helper()
	if err := maildir.Dir(dir).Init(); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		if err := os.Chown(filepath.Join(dir, sub), int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func removeMessages(t *testing.T, dir string) {
	t.Helper()
	seen, err := maildir.Dir(dir).Messages()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range seen {
		if err := m.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}
