package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// explainSite is a configuration with users in a directory of the test.
func explainSite(t *testing.T) (dir, config string) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{"home/ann/Maildir/new", "home/ann/Maildir/cur", "home/ann/Maildir/tmp", "home/ann/Maildir/.lists/new", "home/bob", "nfs", "proc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	users := "ann@example.org:::::DIR/home/ann::\nbob@example.org:::::DIR/home/bob::\neve@example.org:::::DIR/nfs/eve::\n" +
		"off@example.org:::::::userdb_disabled=yes\nhomeless@example.org:::::::\nlow@example.org::17:17::DIR/home/bob::\n"
	writeTestFile(t, filepath.Join(dir, "users"), strings.ReplaceAll(users, "DIR", dir))
	writeTestFile(t, filepath.Join(dir, "none"), "")
	config = filepath.Join(dir, "lmtpd.toml")
	writeTestFile(t, config, fmt.Sprintf(`
hostname = "mx.example.org"
state_directory = %[1]q
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
domains = ["example.org"]
[[userdb]]
type = "passwd-file"
path = "%[1]s/none"
domains = ["example.net", ""]
`, dir))
	return dir, config
}

func writeTestFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whoever may share a file with others is told so.
func TestExplainSingleInstance(t *testing.T) {
	dir, config := explainSite(t)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	for want, mailbox := range map[bool]string{false: "", true: "[mailbox]\nsingle_instance = true\n"} {
		writeTestFile(t, config, string(text)+mailbox)
		var out strings.Builder
		if err := explain(t.Context(), &out, config, filepath.Join(dir, "proc"), 0, []string{"ann@example.org"}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "one file with the copies of others"); got != want {
			t.Errorf("single_instance %t: %s", want, &out)
		}
	}
}

func TestExplain(t *testing.T) {
	dir, config := explainSite(t)
	for _, test := range []struct {
		address string
		code    int
		want    []string
	}{
		{"ann+lists@Example.ORG", exitOK, []string{
			`  address   user "ann", detail "lists", domain "example.org"`,
			`  asked     passwd-file DIR/users: found "ann@example.org"`,
			`            passwd-file DIR/none: not asked: it answers for "example.net", "" only`,
			`  user      ann@example.org of passwd-file DIR/users, mail belongs to whom lmtpd runs as, home DIR/home/ann`,
			`  mailbox   DIR/home/ann/Maildir (from mailbox.path ~/Maildir)`,
			`  folder    .lists`,
			` DIR/home/ann/Maildir` + "\n",
			`  reply     250 2.0.0 OK delivered`,
		}},
		{"<ann+none@example.org>", exitOK, []string{`  folder    INBOX: there is no folder .none`}},
		{"ann+../x@example.org", exitOK, []string{`  folder    INBOX: "../x" cannot name a folder`}},
		{"bob@example.org", exitOK, []string{`            to be made              DIR/home/bob/Maildir`, `  reply     250 2.0.0 `}},
		{"eve@example.org", exitTemporary, []string{
			`            no such file or directory DIR/nfs/eve`,
			`  obstacle  maildir: open root DIR/nfs/eve: mailbox root is not there: no such file or directory (uid `,
			`            DIR/nfs is empty: is a file system not mounted there, or hidden (ProtectHome=, TemporaryFileSystem=)?`,
			`  reply     451 4.2.0 Mailbox is not available`,
		}},
		{"off@example.org", exitUnavailable, []string{`: known, and takes no mail`, `  reply     550 5.2.1 `}},
		{"homeless@example.org", exitTemporary, []string{`has no home, which ~/Maildir needs`, `  reply     451 4.3.5 `}},
		{"low@example.org", exitTemporary, []string{`  reply     451 4.3.5 `}},
		{"nobody@example.org", exitNoUser, []string{`users: no such user`, `  obstacle  nobody@example.org: no such user`, `  reply     550 5.1.1 `}},
		{"ann@example.com", exitNoUser, []string{`            domains of the user databases: "example.org", "example.net", ""; add "example.com" to one of them if it belongs here`, `  reply     550 5.1.2 `}},
		{"\x1b[2J@@x", exitData, []string{`  address   bad address "\x1b[2J@@x": `, `  reply     501 5.1.3 `}},
	} {
		var out bytes.Buffer
		if code := explainCode(explain(t.Context(), &out, config, dir+"/proc", 0, []string{test.address})); code != test.code {
			t.Errorf("%s: %d, want %d", test.address, code, test.code)
		}
		for _, want := range test.want {
			if want = strings.ReplaceAll(want, "DIR", dir); !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", test.address, want, out.String())
			}
		}
	}
	var out bytes.Buffer
	if code := explainCode(explain(t.Context(), &out, config, dir+"/proc", 0, []string{"ann@example.org", "nobody@example.org", "eve@example.org"})); code != exitTemporary {
		t.Errorf("several: %d", code)
	}
	if code := run([]string{"explain", "-c", dir + "/none.toml", "ann@example.org"}, nil, &out, &out); code != exitConfig {
		t.Errorf("no configuration: %d", code)
	}
}

func explainCode(err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitOK
}

// A running daemon whose service hides the homes, or makes them read-only, is found
// by looking at the file system through its eyes.
func TestExplainSeesTheDaemonsView(t *testing.T) {
	dir, _ := explainSite(t)
	proc := filepath.Join(dir, "proc")
	view := daemonView{proc: proc, role: "serve", config: "/etc/lmtpd/lmtpd.toml"}
	if err := view.compare(dir + "/home/ann"); err != nil || view.owner() != nil {
		t.Errorf("no process: %v", err)
	}
	// PID 1 is somebody else, 2 another subcommand, 3 the daemon.
	for pid, cmdline := range map[string]string{"1": "/sbin/init", "2": "lmtpd\x00status\x00", "3": "/usr/bin/lmtpd\x00serve\x00", "4": "lmtpd\x00serve\x00-c\x00other.toml\x00"} {
		writeTestFile(t, filepath.Join(proc, pid, "cmdline"), cmdline)
	}
	writeTestFile(t, filepath.Join(proc, "3/status"), "Name:\tlmtpd\nUid:\t997\t997\t997\t997\nGid:\t998\t998\t998\t998\nFDSize:\t64\nGroups:\t0 5 998 \n")
	if err := view.compare(dir + "/home/ann"); err == nil || !strings.Contains(err.Error(), "for the running lmtpd (process 3): "+dir+"/home/ann is hidden from it (ProtectHome=") {
		t.Errorf("hidden: %v", err)
	}
	if o := view.owner(); o == nil || fmt.Sprint(*o) != "{997 998 [5 998]}" {
		t.Errorf("owner %v", o)
	}
	if err := os.Symlink("/", filepath.Join(proc, "3/root")); err != nil {
		t.Fatal(err)
	}
	if err := view.compare(dir + "/home/ann"); err != nil {
		t.Errorf("visible: %v", err)
	}
	for args, want := range map[string]string{
		"": "/etc/lmtpd/lmtpd.toml", "-c /a/../b": "/b", "--config=/a": "/a", "-c/a": "/a", "-c=/a": "/a", "-v --config /a": "/a", "-c": "/etc/lmtpd/lmtpd.toml",
	} {
		if got := view.configOf("3", bytes.Split([]byte(args), []byte(" "))); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
	if got := stateOf("/proc/self"); got != rootThere {
		t.Errorf("state %v", got)
	}
}
