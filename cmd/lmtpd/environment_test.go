package main

import (
	"net"
	"os"
	"strings"
	"testing"
)

// checkText runs checkEnvironment on a configuration where DIR is a new directory with
// a file FILE and a live socket; it returns the answer with DIR in it again.
func checkText(t *testing.T, text string, inherited ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/FILE", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", dir+"/live.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := loadText(t, strings.ReplaceAll(text, "DIR", dir))
	errs := c.checkEnvironment(inherited)
	return strings.ReplaceAll(errs.Error(), dir, "DIR")
}

const usable = `
state_directory = "DIR"
[[userdb]]
type = "system"
`

func TestCheckEnvironment(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"fine", usable + "[[listen]]\naddress = 'DIR/lmtp.sock'\n[[listen]]\nname='tcp'\naddress='tcp:127.0.0.1:24'\n", ""},
		{"the running daemon's socket", usable + "[[listen]]\naddress = 'DIR/live.sock'\n", ""},
		{"socket in a missing directory", usable + "[[listen]]\naddress = 'DIR/run/lmtp.sock'\n",
			"test.toml:6: listen.address: the directory DIR/run does not exist; create it (install -d DIR/run; with systemd, RuntimeDirectory= or tmpfiles.d), or use another path"},
		{"socket below a file", usable + "[[listen]]\naddress = 'DIR/FILE/lmtp.sock'\n",
			"test.toml:6: listen.address: DIR/FILE is not a directory; use a path in a directory"},
		{"file in the way", usable + "[[listen]]\naddress = 'DIR/FILE'\n",
			"test.toml:6: listen.address: DIR/FILE is in the way: it is not a socket; move it elsewhere, or use another address"},
		{"unknown owner and group", usable + "[[listen]]\naddress = 'DIR/lmtp.sock'\ngroup = 'no-such-group'\nowner = 'no-such-user'\n",
			"test.toml:7: listen.group: there is no group \"no-such-group\"; create it, or name one that exists (by name or number)\n" +
				"test.toml:8: listen.owner: there is no user \"no-such-user\"; create it, or name one that exists (by name or number)"},
		{"no state directory", strings.Replace(usable, "DIR", "DIR/spool", 1) + "[[listen]]\naddress = 'DIR/lmtp.sock'\n",
			"test.toml:2: state_directory: the directory DIR/spool for spooled messages does not exist; create it for the user of lmtpd (install -d -m 0700 -o USER DIR/spool; with systemd, StateDirectory=lmtpd)"},
		{"state directory is a file", strings.Replace(usable, "DIR", "DIR/FILE", 1) + "[[listen]]\naddress = 'DIR/lmtp.sock'\n",
			"test.toml:2: state_directory: DIR/FILE is not a directory; name a directory for spooled messages"},
		{"nothing configured", "state_directory = 'DIR'\n",
			"test.toml: userdb: there is no user database, so nobody gets mail; add a [[userdb]] with type = \"system\" or type = \"passwd-file\"\n" +
				"test.toml: warning: listen: there is no [[listen]]; lmtpd starts only with sockets from systemd (lmtpd.socket)"},
		{"only a name", usable + "[[listen]]\nname = 'front'\n",
			"test.toml:6: warning: listen.name: there is no address; lmtpd starts only if systemd passes a socket with FileDescriptorName=front"},
		{"strange but possible", usable + "[[listen]]\naddress = 'DIR/lmtp.sock'\n[mailbox]\npath = '/var/mail/all%%'\n[limits]\nmessage_size = 1000\nrecipients = 5\n",
			"test.toml:8: warning: mailbox.path: is one mailbox for all users; use \"~/Maildir\", or a path with %u, or %n and %d\n" +
				"test.toml:10: warning: limits.message_size: 1000 is less than any SMTP server must take; write \"64 KiB\" or more\n" +
				"test.toml:11: warning: limits.recipients: 5 is less than any SMTP server must take; write 100 or more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := checkText(t, test.text); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

func TestCheckEnvironmentWithSystemd(t *testing.T) {
	text := usable + "[[listen]]\nname = 'front'\n[[listen]]\nname='back'\naddress='DIR/run/lmtp.sock'\n"
	if got := checkText(t, text, "front", "back"); got != "" {
		t.Errorf("got %s", got)
	}
	if got := checkText(t, usable, "lmtpd.socket"); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestCheckEnvironmentPermissions(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	c := loadText(t, strings.ReplaceAll(usable+"[[listen]]\naddress='DIR/lmtp.sock'\n", "DIR", dir))
	got := c.checkEnvironment(nil).Error()
	for _, want := range []string{"may not create a socket in " + dir, "is not writable for uid"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestWarningsAreNotFatal(t *testing.T) {
	if (configErrors{{Warning: true}}).fatal() || !(configErrors{{Warning: true}, {}}).fatal() {
		t.Error("only what is no warning is fatal")
	}
}
