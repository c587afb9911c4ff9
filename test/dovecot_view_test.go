package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// send1 delivers one message to one recipient.
func send1(t *testing.T, c *client, to string, message string) {
	t.Helper()
	parameters := ""
	if strings.ContainsFunc(to, func(r rune) bool { return r > 127 }) {
		parameters = "SMTPUTF8"
	}
	if r := c.send(t, "sender@example.net", parameters, []string{to}, []byte(message), 1)[0]; !strings.HasPrefix(r, "250 2.0.0 ") {
		t.Fatalf("to %s: %q", to, r)
	}
}

const readSiteFolders = `
[mailbox]
create_folders = true
folder_separator = "/"
[[filing]]
field = "X-Spam-Flag"
value = "YES"
folder = "Junk"
create = true
seen = true
`

// TestDovecotFolders: Dovecot finds the folders that a delivery makes, nested ones and
// those with names in modified UTF-7, subscribed, with their messages and flags, while
// messages keep coming into one of them.
func TestDovecotFolders(t *testing.T) {
	t.Parallel()
	s := startReadSite(t, readSiteFolders, "view")
	d := startDovecot(t, s)
	const user = "view@example.org"
	load := startFlow(t, s.sock, "view+Load@example.org")
	load.grant(1)
	<-load.first
	load.grant(400)
	want := []string{"INBOX", "Junk", "Lists/Go", "Lists/Go/nuts & bolts", "Entwürfe/日本", "Load"}
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	for round := 1; round <= 3; round++ {
		for i, folder := range want[:5] {
			to, spam := "view+"+folder+"@example.org", ""
			switch folder {
			case "INBOX":
				to = user
			case "Junk":
				to, spam = user, "X-Spam-Flag: yes\r\n"
			case "Lists/Go/nuts & bolts":
				to = `"view+Lists/Go/nuts & bolts"@example.org`
			}
			send1(t, c, to, fmt.Sprintf("%s%sX-Round: %d.%d\r\n\r\n%s", header, spam, round, i, strings.Repeat("text\r\n", round*i)))
		}
		checkFolders(t, d, user, want, round)
	}
	load.end()
	<-load.over
	all := load.acknowledged(t)
	if got := d.doveadm(t, "mailbox", "status", "-u", user, "messages", "Load"); got != fmt.Sprintf("Load messages=%d\n", len(all)) {
		t.Errorf("%q, and %d have been acknowledged", got, len(all))
	}
	// Nothing lies in a folder that is not listed.
	if dirs, err := filepath.Glob(s.maildir("view") + "/.*/new"); err != nil || len(dirs) != len(want)-1 {
		t.Errorf("%d folders on disk, %v: %q", len(dirs), err, dirs)
	}
	s.stop(t)
}

// checkFolders asks doveadm for what there must be after so many rounds.
func checkFolders(t *testing.T, d *dovecot, user string, want []string, rounds int) {
	t.Helper()
	subscribed := lineSet(d.doveadm(t, "mailbox", "list", "-s", "-u", user))
	listed := lineSet(d.doveadm(t, "mailbox", "list", "-u", user))
	for _, folder := range want {
		if !slices.Contains(listed, folder) || folder != "INBOX" && !slices.Contains(subscribed, folder) {
			t.Errorf("%s: listed are %q, subscribed %q", folder, listed, subscribed)
		}
		if folder == "Load" {
			continue
		}
		flags := lineSet(d.doveadm(t, "-f", "flow", "fetch", "-u", user, "flags", "mailbox", folder, "all"))
		seen := 0
		for _, f := range flags {
			if strings.Contains(f, `\Seen`) {
				seen++
			}
		}
		wantSeen := 0
		if folder == "Junk" {
			wantSeen = rounds
		}
		if len(flags) != rounds || seen != wantSeen {
			t.Errorf("%s: %d messages, %d of them seen, want %d and %d", folder, len(flags), seen, rounds, wantSeen)
		}
	}
	for _, folder := range subscribed {
		if !slices.Contains(want, folder) {
			t.Errorf("%s is subscribed", folder)
		}
	}
}

func lineSet(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		all = append(all, strings.TrimSuffix(line, "\n"))
	}
	slices.Sort(all)
	return all
}

// TestDovecotSizes: the sizes in our file names are those that Dovecot finds when it has
// to count itself.
func TestDovecotSizes(t *testing.T) {
	t.Parallel()
	s := startReadSite(t, "", "named", "counted")
	d := startDovecot(t, s)
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	for _, message := range []string{
		header + "\r\n", header, "\r\n", header + "\r\na\nb\rc\r\r\nd\r\n", header + "\r\n\x00\r\n", "no header\r\n",
		header + "\r\n" + strings.Repeat("Grüße\r\n", 60_000), header + "\r\n" + strings.Repeat("x", 100_000) + "\r\n",
	} {
		send1(t, c, "named@example.org", message)
	}
	// Without S= and W= in the name, it has to look into the file.
	files, err := filepath.Glob(s.maildir("named") + "/new/*")
	if err != nil || len(files) != 8 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base, _, _ := strings.Cut(filepath.Base(name), ",")
		bare := filepath.Join(s.maildir("counted"), "new", base)
		if err := os.WriteFile(bare, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sizes := func(user string) []string {
		return lineSet(d.doveadm(t, "-f", "tab", "fetch", "-u", user+"@example.org", "size.physical size.virtual", "mailbox", "INBOX", "all"))
	}
	named, counted := sizes("named"), sizes("counted")
	if len(named) != 9 || !slices.Equal(named, counted) {
		t.Errorf("physical and virtual sizes by our names %q, as Dovecot counts %q", named, counted)
	}
	// RFC822.SIZE over IMAP, compared with what is sent.
	imap := openIMAP(t, &readerSite{s, d}, "named")
	imap(t)
	s.stop(t)
}

// TestDovecotQuota: one maildirsize serves both. Dovecot reports what we have added
// without counting anew, and what Dovecot removes is room for the next message.
func TestDovecotQuota(t *testing.T) {
	t.Parallel()
	s := startReadSite(t, "[mailbox]\nquota = \"100 MiB\"\nquota_messages = 40\ncreate_folders = true\n", "full")
	d := startDovecot(t, s)
	const user = "full@example.org"
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	usage := func() (octets, messages int) {
		for _, line := range lineSet(d.doveadm(t, "-f", "tab", "quota", "get", "-u", user)) {
			f := strings.Split(line, "\t")
			switch {
			case len(f) > 2 && f[1] == "STORAGE":
				octets = atoi(t, f[2])
			case len(f) > 2 && f[1] == "MESSAGE":
				messages = atoi(t, f[2])
			}
		}
		return octets, messages
	}
	for i := range 40 {
		to := user
		if i%2 == 0 {
			to = "full+folder@example.org"
		}
		send1(t, c, to, fmt.Sprintf("%sX-Number: %d\r\n\r\n%s", header, i, strings.Repeat("0123456789abcde\r\n", 100)))
		if i%10 != 9 {
			continue
		}
		sizes := filepath.Join(s.maildir("full"), "maildirsize")
		before := readFile(t, sizes)
		octets, messages := usage()
		if readFile(t, sizes) != before {
			t.Errorf("Dovecot has made maildirsize anew, which was %q", before)
		}
		d.doveadm(t, "quota", "recalc", "-u", user)
		counted, number := usage()
		if messages != i+1 || octets == 0 || octets != counted || messages != number {
			t.Errorf("after %d: %d KiB in %d messages, counted %d in %d", i+1, octets, messages, counted, number)
		}
	}
	c.expect(t, "250", "MAIL FROM:<>")
	c.expect(t, "452 4.2.2", "RCPT TO:<"+user+">")
	c.expect(t, "250", "RSET")
	d.doveadm(t, "expunge", "-u", user, "mailbox", "folder", "1:5")
	send1(t, c, user, header+"\r\nfits again\r\n")
	if _, messages := usage(); messages != 36 {
		t.Errorf("%d messages, want 36", messages)
	}
	s.stop(t)
}
