package main

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// Programs run as an account that exists and is not root, which this process can become.
func TestCommandsUser(t *testing.T) {
	const program = "[[quota_warning]]\npercent = 90\ncommand = [\"/bin/true\"]\n"
	if r, err := loadText(t, "").runner(); r != nil || err != nil {
		t.Errorf("no programs: %+v, %v", r, err)
	}
	if r, err := loadText(t, program+"[commands]\nparallel = 3\ntime_limit = \"7s\"\n").runner(); err != nil || r.Account != nil || r.Parallel != 3 || r.Timeout.Seconds() != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, name := range []string{"root", "no-such-account"} {
		if _, err := loadText(t, program+"[commands]\nuser = \""+name+"\"\n").runner(); err == nil || !strings.Contains(err.Error(), "commands.user: cannot be used") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := loadText(t, program+"[commands]\nuser = \"nobody\"\n").runner(); err == nil || !strings.Contains(err.Error(), "useradd --system lmtpd-commands") {
		t.Errorf("nobody: %v", err)
	}
	daemon, err := user.Lookup("daemon")
	if err != nil {
		t.Skip(err)
	}
	c := loadText(t, program+"[commands]\nuser = \"daemon\"\n")
	r, err := c.runner()
	if err != nil || r.Account == nil || r.Account.UID == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if os.Geteuid() == 0 {
		res, err := r.Run(t.Context(), []string{"/usr/bin/id", "-u"}, nil)
		if err != nil || strings.TrimSpace(res.Output) != daemon.Uid {
			t.Errorf("%+v, %v", res, err)
		}
	}
	for _, test := range []struct {
		config string
		uid    int
		want   string
	}{
		{program, 0, "commands.user: is empty, and programs are never run as root; name an account"},
		{program, 1000, ""},
		{program + "[commands]\nuser = \"daemon\"\n", 0, ""},
		{program + "[commands]\nuser = \"daemon\"\n", int(r.Account.UID), ""},
		{program + "[commands]\nuser = \"daemon\"\n", 1000, "commands.user: uid 1000 cannot run programs as daemon; leave it out"},
		{"", 0, ""},
	} {
		err := loadText(t, test.config).checkCommands(test.uid)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("uid %d: %v, want %q", test.uid, err, test.want)
		}
	}
	// The confined front may execute them, and read the texts of mails.
	covered := false
	for _, n := range loadText(t, strings.Replace(program, "/bin/true", "/opt/site/bin/warn", 1)).frontNeeds() {
		covered = covered || n.path.Name == "/opt/site/bin" && n.path.Access&readRun == readRun
	}
	if !covered {
		t.Error("the front cannot run its programs")
	}
}

// Root who checks asks for the account of the daemon, and not for its own.
func TestCheckAsRootAsksForTheDaemon(t *testing.T) {
	proc := t.TempDir()
	one, two := loadText(t, ""), loadText(t, "[writer]\nsocket = \"/run/w.sock\"\nfront_user = \"4321\"\n")
	for _, step := range []struct {
		c    *config
		uid  int
		want int
		sure bool
	}{
		{one, 1000, 1000, true},
		{one, 0, 0, false},
		{two, 0, 4321, true},
	} {
		if uid, sure := step.c.frontUID(step.uid, newDaemonView(step.c, "/x.toml", proc)); uid != step.want || sure != step.sure {
			t.Errorf("%d, %v, want %d, %v", uid, sure, step.want, step.sure)
		}
	}
	writeTestFile(t, filepath.Join(proc, "3/cmdline"), "/usr/bin/lmtpd\x00serve\x00-c\x00/x.toml\x00")
	writeTestFile(t, filepath.Join(proc, "3/status"), "Name:\tlmtpd\nUid:\t997\t997\t997\t997\n")
	for _, c := range []*config{one, two} {
		if uid, sure := c.frontUID(0, newDaemonView(c, "/x.toml", proc)); uid != 997 || !sure {
			t.Errorf("%d, %v", uid, sure)
		}
	}

	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := shortDir(t)
	config := filepath.Join(dir, "lmtpd.toml")
	text := "state_directory = \"" + dir + "\"\n[[userdb]]\ntype = \"any\"\ndomains = [\"example.org\"]\n[mailbox]\npath = \"" + dir + "/%n\"\n[[quota_warning]]\npercent = 90\ncommand = [\"/bin/true\"]\n"
	for more, want := range map[string]string{
		"": `commands.user: if "lmtpd serve" runs as root: is empty`,
		"[writer]\nsocket = \"/run/w.sock\"\nfront_user = \"4321\"\n":                                "",
		"[writer]\nsocket = \"/run/w.sock\"\nfront_user = \"4321\"\n[commands]\nuser = \"daemon\"\n": "commands.user: uid 4321 cannot run programs as daemon; leave it out",
	} {
		writeTestFile(t, config, text+more)
		var out strings.Builder
		if err := check(&out, config); err != nil {
			t.Errorf("%s: %v", more, err)
		}
		if got := out.String(); !strings.Contains(got, want) || want == "" && strings.Contains(got, "commands.user") {
			t.Errorf("%s: %s", more, got)
		}
	}
}
