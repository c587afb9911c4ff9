package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// loadText is parseConfig without what differs from machine to machine.
func loadText(t *testing.T, text string) *config {
	t.Helper()
	c, err := parseConfig("test.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEmptyConfigIsTheDefaults(t *testing.T) {
	c := loadText(t, "")
	if c.Hostname == "" {
		t.Error("no host name")
	}
	want := defaultConfig()
	c.doc, c.Hostname = nil, ""
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

func TestExampleOfTheDesign(t *testing.T) {
	c := loadText(t, `
hostname = "mx.example.org"
[[listen]]
name     = "lmtp"
protocol = "lmtp"
address  = "unix:/run/lmtpd/lmtp.sock"
mode     = "0600"
group    = "postfix"
[[listen]]
name = "smtp-in"
protocol = "smtp"
address = "tcp:[::1]:25"
[address]
delimiter = "+-"
fold_case = false
[[userdb]]
type = "passwd-file"
path = "/etc/lmtpd/users"
[[userdb]]
type = "system"
domains = ["Example.org", ""]
minimum_uid = 500
[mailbox]
path          = "/var/mail/%d/%n"
detail_folder = false
durability    = "none"
sync_order    = "strict"
single_instance = true
newlines = "crlf"
[limits]
message_size = 1_000_000
memory_body = "0"
sessions = 0x10
command_timeout = "1h30m"
[delivery]
loop_check = false
[log]
level = "debug"
format = "json"
`)
	want := defaultConfig()
	want.Hostname = "mx.example.org"
	want.Listen = []listenConfig{
		{Name: "lmtp", Protocol: protoLMTP, Address: socketAddress{"unix", "/run/lmtpd/lmtp.sock"}, Mode: 0o600, Group: "postfix"},
		{Name: "smtp-in", Protocol: protoSMTP, Address: socketAddress{"tcp", "[::1]:25"}},
	}
	want.Address = addressConfig{Delimiter: "+-"}
	want.Userdb = []userdbConfig{
		{Type: userdbPasswdFile, Path: "/etc/lmtpd/users", MinimumUID: 1000},
		{Type: userdbSystem, Domains: []string{"example.org", ""}, MinimumUID: 500},
	}
	want.Mailbox.Path, want.Mailbox.Durability, want.Mailbox.Newlines = "/var/mail/%d/%n", durabilityNone, newlinesCRLF
	want.Mailbox.DetailFolder, want.Mailbox.SyncOrder = false, syncOrderStrict
	want.Mailbox.SingleInstance = true
	want.Limits.MessageSize, want.Limits.MemoryBody = 1_000_000, 0
	want.Limits.Sessions, want.Limits.CommandTimeout = 16, duration(90*60*1e9)
	want.Delivery.LoopCheck = false
	want.Log = logConfig{Level: logLevelDebug, Format: logFormatJSON, Target: logTargetAuto}
	c.doc = nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

func TestInlineTables(t *testing.T) {
	c := loadText(t, "\xef\xbb\xbflisten = [ {address = '/run/a'}, {name='b', protocol='smtp'} ]\r\nlimits.errors = 3\r\naddress = {delimiter='-'}\r\n")
	if len(c.Listen) != 2 || c.Listen[0].Mode != 0o660 || c.Listen[0].Name != "lmtp" || c.Listen[1].Protocol != protoSMTP || c.Limits.Errors != 3 || c.Address.Delimiter != "-" {
		t.Errorf("got %+v", c)
	}
}

// Every key of the sample, put into force, is the default; and every key is there.
func TestSampleShowsTheDefaults(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	sample, err := os.ReadFile("lmtpd.toml")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := parseConfig("lmtpd.toml", sample); err != nil {
		t.Fatal(err)
	} else if len(c.doc.lines) > 0 {
		t.Errorf("keys in force: %v", c.doc.lines)
	}
	text := regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAllString(string(sample), "$1")
	c, err := parseConfig("lmtpd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range allKeys("", reflect.TypeFor[config]()) {
		found := false
		for have := range c.doc.lines {
			found = found || withoutIndexes(have) == key
		}
		if !found {
			t.Errorf("%s is not in the sample", key)
		}
	}
	want := defaultConfig()
	want.Listen = []listenConfig{{Name: "lmtp", Protocol: protoLMTP, Address: socketAddress{"unix", "/run/lmtpd/lmtp.sock"}, Mode: 0o660}}
	want.Userdb = []userdbConfig{
		{Type: userdbPasswdFile, Path: "/etc/lmtpd/users", Domains: []string{}, MinimumUID: 1000},
		{Type: userdbSystem, Domains: []string{}, MinimumUID: 1000, TrustNSS: []string{}},
	}
	want.Filing = []filingConfig{{Field: "X-Spam-Flag", Value: "YES", Folder: "Junk", Create: true}}
	want.QuotaWarning = []quotaWarningConfig{{Percent: 90, Mail: "/etc/lmtpd/over-quota.txt", Command: []string{}}}
	want.Transport = []transportConfig{
		{Name: "relay", Type: transportRelay, Domains: []string{}, Protocol: protoLMTP, Hosts: []string{}, Port: 24, TLS: tlsOff, Parallel: 20, IdleTimeout: duration(30 * time.Second), Timeout: duration(5 * time.Minute)},
		{Name: "pipe", Type: transportPipe, Command: []string{"/usr/local/bin/tickets", "--from={sender}", "--queue={detail}"}, WritePaths: []string{}, Parallel: 20, Timeout: duration(5 * time.Minute)},
		{Name: "discard", Type: transportDiscard, Parallel: 20, Timeout: duration(5 * time.Minute)},
		{Name: "debug", Type: transportDebug, Parallel: 20, Timeout: duration(5 * time.Minute)},
	}
	want.Mailbox.QuotaIgnore, want.Mailbox.QuotaWarn = []string{}, []int{}
	c.doc, c.Hostname = nil, ""
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

func TestEveryKeyHasAnExample(t *testing.T) {
	var check func(typ reflect.Type, path string)
	check = func(typ reflect.Type, path string) {
		for _, key := range keysOf(typ) {
			f, _ := fieldByKey(typ, key)
			switch {
			case isTable(f.Type):
				check(f.Type, path+key+".")
			case isTableList(f.Type):
				check(f.Type.Elem(), path+key+".")
			case f.Tag.Get("example") == "":
				t.Errorf("%s%s has no example", path, key)
			}
		}
	}
	check(reflect.TypeFor[config](), "")
}

// Each testdata/badconfig/NAME.toml is refused with the text of NAME.txt.
func TestBadConfig(t *testing.T) {
	files, err := filepath.Glob("testdata/badconfig/*.toml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".toml") + ".txt")
			if err != nil {
				t.Error(err)
			}
			c, err := parseConfig(filepath.Base(file), data)
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if got := err.Error() + "\n"; got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
			var one *configError
			if !errors.As(err, &one) || one.File != filepath.Base(file) {
				t.Errorf("no *configError of this file in %#v", err)
			}
		})
	}
}

func TestFaultsAreNotEndless(t *testing.T) {
	_, err := parseConfig("users", []byte(strings.Repeat("[[users]]\n", 1000)))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 51 || lines[50] != "users:51: 950 more faults from here on" {
		t.Errorf("%d lines, %q", len(lines), lines[len(lines)-1])
	}
}

func TestUnreadableConfig(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret.toml")
	if err := os.WriteFile(secret, nil, 0); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path, want string
		asRoot           bool
	}{
		{"missing", dir + "/none.toml", dir + "/none.toml: no such file; create it", true},
		{"directory", dir, dir + ": is a directory; name the file in it: -c " + dir + "/lmtpd.toml", true},
		{"below a file", secret + "/x", secret + "/x: not a directory; ", true},
		{"endless", "/dev/zero", "/dev/zero: larger than 1 MiB; ", true},
		{"permission", secret, secret + ": permission denied for uid ", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.asRoot && os.Geteuid() == 0 {
				t.Skip("root may read every file")
			}
			_, err := loadConfig(test.path)
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s...", err, test.want)
			}
		})
	}
}

func TestStateDirectoryFromSystemd(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
	if c := loadText(t, ""); c.StateDirectory != "/var/lib/one" {
		t.Errorf("got %s", c.StateDirectory)
	}
	if c := loadText(t, "state_directory = '/srv'"); c.StateDirectory != "/srv" {
		t.Errorf("got %s", c.StateDirectory)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"sessions", "recipients", "errors", "memory_body"}
	for in, want := range map[string]string{
		"sesions": "sessions", "sessoins": "sessions", "recipient": "recipients",
		"memorybody": "memory_body", "qqqqqq": "", strings.Repeat("s", 10000): "",
	} {
		if got := nearest(in, keys); got != want {
			t.Errorf("nearest(%.20s) = %q, want %q", in, got, want)
		}
	}
	if d := editDistance("", "abc"); d != 3 {
		t.Errorf("distance %d, want 3", d)
	}
}
