package delivery

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	gomaildir "github.com/emersion/go-maildir"
	"github.com/emersion/go-maildir/maildirpp"

	"github.com/lmtpd/lmtpd/userdb"
)

func TestFolderDirectory(t *testing.T) {
	for _, test := range []struct{ separator, name, want string }{
		{"", "lists", ".lists"},
		{"", "lists.go", ".lists.go"},
		{".", "lists.go", ".lists.go"},
		{"/", "lists/go", ".lists.go"},
		{"-", "lists-go", ".lists.go"},
		{"/", "lists.go", ""}, // would be two levels
		{"", "Entwürfe", ".Entw&APw-rfe"},
		{"/", "~peter/mail/台北/日本語", ""},
		{"/", "peter/mail/台北/日本語", ".peter.mail.&U,BTFw-.&ZeVnLIqe-"}, // RFC 3501 section 5.1.3
		{"", "a&b", ".a&-b"},
		{"", "📧", ".&2D3c5w-"},
		{"", "&", ".&-"},
		{"", "inbox", ""},
		{"", "", ""},
		{"", ".", ""},
		{"", "..", ""},
		{"", ".a", ""},
		{"", "a.", ""},
		{"", "a..b", ""},
		{"/", "../x", ""},
		{"", "a/b", ""},
		{"", "~a", ""},
		{"", "a*", ""},
		{"", "a\x00", ""},
		{"", "a\xff", ""},
		{"", strings.Repeat("x", 254), "." + strings.Repeat("x", 254)},
		{"", strings.Repeat("x", 255), ""},
		{"", strings.Repeat("ü", 100), ""},
	} {
		f := Folders{Separator: test.separator}
		if got := f.directory(test.name); got != test.want {
			t.Errorf("%q with %q: %q, want %q", test.name, test.separator, got, test.want)
		}
	}
}

func TestFoldersCheck(t *testing.T) {
	good := FilingRule{Field: "X-Spam-Flag", Value: "YES", Folder: "Junk"}
	for _, test := range []struct {
		folders Folders
		want    string
	}{
		{Folders{}, ""},
		{Folders{Separator: "/", Rules: []FilingRule{good, {Field: "X", Folder: "INBOX"}}}, ""},
		{Folders{Separator: "//"}, "separator"},
		{Folders{Separator: "a"}, "separator"},
		{Folders{Separator: " "}, "separator"},
		{Folders{Rules: []FilingRule{good, {Field: "X Y", Folder: "Junk"}}}, "rule 2"},
		{Folders{Rules: []FilingRule{{Field: "", Folder: "Junk"}}}, "rule 1"},
		{Folders{Rules: []FilingRule{{Field: "X:", Folder: "Junk"}}}, "rule 1"},
		{Folders{Rules: []FilingRule{{Field: "X", Folder: ""}}}, "folder"},
		{Folders{Rules: []FilingRule{{Field: "X", Folder: "../x"}}}, "folder"},
	} {
		err := test.folders.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.folders, err, test.want)
		}
	}
}

// TestFiling: by header before detail, with what a user says against it.
func TestFiling(t *testing.T) {
	f := Folders{Detail: true, Create: true, Rules: []FilingRule{
		{Field: "X-Spam-Flag", Value: "yes", Folder: "Junk", Seen: true, Create: true},
		{Field: "x-spam-status", Value: "Yes,*", Folder: "Junk"},
		{Field: "List-Id", Value: "*", Folder: "Lists"},
		{Field: "X-Mine", Value: "1", Folder: "INBOX", Seen: true},
	}}
	junk := filing{".Junk", true, true}
	for _, test := range []struct {
		header, detail, optOut string
		want                   filing
	}{
		{"X-SPAM-FLAG:  YES \r\n", "", "", junk},
		{"X-Spam-Flag: YES\r\n", "x", "", junk},
		{"X-Spam-Flag: NO\r\nX-Spam-Flag:\r\n YES\r\n", "", "", junk},
		{"X-Spam-Flag: YES\r\n", "x", "No", filing{".x", true, false}},
		{"X-Spam-Flag: YESTERDAY\r\n", "x", "", filing{".x", true, false}},
		{"X-Spam-Status: YES, score=9\r\n", "x", "yes", filing{".Junk", false, false}},
		{"X-Spam-Status: Yes, " + strings.Repeat("x", 5000) + "\r\n", "", "", filing{".Junk", false, false}},
		{"X-Spam-Status: No, score=0\r\n", "", "", filing{"", true, false}},
		{"List-Id: any\r\n", "", "", filing{".Lists", false, false}},
		{"X-Mine: 1\r\n", "x", "", filing{"", false, true}},
		{"Subject: x\r\n\r\nX-Spam-Flag: YES\r\n", "x", "", filing{".x", true, false}},
		{strings.Repeat("X-Spam-Flag: no\r\n", wantedFields) + "X-Spam-Flag: YES\r\n", "", "", filing{"", true, false}},
	} {
		sp, err := Spool{fields: []string{"x-spam-flag", "x-spam-status", "list-id", "x-mine"}}.take(strings.NewReader(test.header), 0)
		if err != nil {
			t.Fatal(err)
		}
		r := &recipient{addr: userdb.Address{Local: "bob", Detail: test.detail}, user: &userdb.User{}}
		if test.optOut != "" {
			r.user.Extra = map[string]string{"filing": test.optOut}
		}
		if got := f.file(r, &sp.header); got != test.want {
			t.Errorf("%.60q +%s %s: %+v, want %+v", test.header, test.detail, test.optOut, got, test.want)
		}
		sp.Close()
	}
}

// TestFolders: from the wire to the folder, as another reader of Maildir++ sees it.
func TestFolders(t *testing.T) {
	s := newSite(t, "bob")
	s.agent.Folders = Folders{Detail: true, Separator: "/", Rules: []FilingRule{{Field: "X-Spam-Flag", Value: "YES", Folder: "Junk", Create: true, Seen: true}}}
	s.start(t)
	c := s.client(t)
	send := func(to, body string) Outcome {
		t.Helper()
		wantReplies(t, c.Send("", []string{to}, body, 1), "250 2.0.0")
		list := s.reported()
		return list[len(list)-1]
	}
	if o := send("bob+lists/go@example.org", hello); o.Folder != "" {
		t.Errorf("a folder that does not exist: %+v", o)
	}
	key, err := maildirpp.Join([]string{"lists", "go"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.maildir("bob"), key), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := gomaildir.Dir(filepath.Join(s.maildir("bob"), key)).Init(); err != nil {
		t.Fatal(err)
	}
	if o := send("bob+lists/go@example.org", hello); o.Folder != key {
		t.Errorf("a folder that exists: %+v", o)
	}
	trace{to: `bob+lists/go@example.org`}.strip(t, readOne(t, filepath.Join(s.maildir("bob"), key)))
	if o := send("bob+lists/go@example.org", "x-spam-flag:yes\r\n"+hello); o.Folder != ".Junk" || !strings.HasSuffix(o.File, ":2,S") {
		t.Errorf("spam: %+v", o)
	}
	if got, err := os.ReadFile(filepath.Join(s.maildir("bob"), "subscriptions")); string(got) != "Junk\n" {
		t.Errorf("subscriptions %q, %v", got, err)
	}
	readOne(t, filepath.Join(s.maildir("bob"), ".Junk"))
	readOne(t, s.maildir("bob"))

	// A subscription that cannot be noted is for the log, not for the client.
	s = newSite(t, "bob")
	s.agent.Folders = Folders{Detail: true, Create: true}
	if err := os.MkdirAll(filepath.Join(s.maildir("bob"), "subscriptions"), 0o700); err != nil {
		t.Fatal(err)
	}
	c = s.start(t).client(t)
	if o := send("bob+x@example.org", hello); o.Folder != ".x" || o.Warning == nil || !strings.Contains(s.log.String(), "delivered, but") {
		t.Errorf("%+v, log %s", o, s.log.String())
	}
}

// errNotUTF7 is what decodeUTF7 says to everything that modifiedUTF7 does not write.
var errNotUTF7 = errors.New("not in modified UTF-7")

// decodeUTF7 undoes modifiedUTF7.
func decodeUTF7(s string) (string, error) {
	var b strings.Builder
	for s != "" {
		i := strings.IndexByte(s, '&')
		if i < 0 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		code, rest, ok := strings.Cut(s[i+1:], "-")
		if s = rest; !ok {
			return "", errNotUTF7
		}
		if code == "" {
			b.WriteByte('&')
			continue
		}
		octets, err := utf7Encoding.DecodeString(code)
		if err != nil || len(octets)%2 != 0 {
			return "", errNotUTF7
		}
		units := make([]uint16, 0, len(octets)/2)
		for ; len(octets) > 0; octets = octets[2:] {
			units = append(units, binary.BigEndian.Uint16(octets))
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	return b.String(), nil
}

// A folder's directory holds the name, level by level, and nothing that leads out.
func FuzzFolder(f *testing.F) {
	f.Add("lists/go", "/")
	f.Add("\U0001f4e7&ü-", ".")
	f.Add("../..", "")
	f.Fuzz(func(t *testing.T, name, separator string) {
		folders := Folders{Separator: separator}
		if folders.Check() != nil {
			return
		}
		dir := folders.directory(name)
		if dir == "" {
			return
		}
		if len(dir) > maxComponent || dir[0] != '.' || strings.ContainsAny(dir, "/\x00") || strings.Contains(dir, "..") {
			t.Fatalf("%q is %q", name, dir)
		}
		levels, err := maildirpp.Split(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range levels {
			if levels[i], err = decodeUTF7(levels[i]); err != nil {
				t.Fatalf("%q is %q: %v", name, dir, err)
			}
		}
		if separator == "" {
			separator = "."
		}
		if got := strings.Join(levels, separator); got != name && utf8.ValidString(name) {
			t.Errorf("%q is %q, which is %q", name, dir, got)
		}
	})
}
