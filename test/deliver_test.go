package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDeliver: one message from standard input, no daemon; the exit status is
// what Postfix's pipe(8) goes by.
func TestDeliver(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	home, gone, file := filepath.Join(dir, "user"), filepath.Join(dir, "gone"), filepath.Join(dir, "lmtpd.toml")
	mkdir(t, home, nil)
	mkdir(t, filepath.Join(dir, "state"), nil)
	writeFile(t, filepath.Join(dir, "users"), fmt.Sprintf("user@example.org:::::%s::\nunmounted@example.org:::::%s::\n", home, gone))
	writeFile(t, file, fmt.Sprintf(`
hostname = "mx.example.org"
state_directory = "%[1]s/state"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
`, dir))
	deliver := func(config, message string, args ...string) (int, string) {
		t.Helper()
		cmd := exec.Command(program, append([]string{"deliver", "-c", config}, args...)...)
		cmd.Stdin = strings.NewReader(message)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}

	// Neither line ends nor the last line are touched.
	const message = "Subject: raw\n\n.\n..\nCR alone \r here\nCRLF\r\n\x00\xff\nno end"
	status, out := deliver(file, message, "-f", "sender@example.net", "user@example.org")
	if status != 0 || out != "" {
		t.Fatalf("exit status %d: %s", status, out)
	}
	m := oneMessage(t, filepath.Join(home, "Maildir"))
	head := regexp.MustCompile(fmt.Sprintf(`\AReturn-Path: <sender@example\.net>\nDelivered-To: user@example\.org\n`+
		`Received: \(from userid %d\)\n\tby mx\.example\.org \(lmtpd\) id [^\s;()]+\n\tfor <user@example\.org>; %s\n`, os.Getuid(), date)).Find(m.content)
	if head == nil {
		t.Fatalf("stored\n%q", m.content)
	}
	if diff := firstDifference(m.content[len(head):], asStored([]byte(message))); diff != "" {
		t.Error("after the trace header", diff)
	}

	for _, c := range []struct {
		what   string
		config string
		to     string
		status int
		says   string
	}{
		{"unknown user", file, "unknown@example.org", 67, "5.1.1 "},
		{"home not mounted", file, "unmounted@example.org", 75, "4.2.0 "},
		{"no configuration", dir + "/none.toml", "user@example.org", 78, "none.toml"},
	} {
		status, out := deliver(c.config, message, c.to)
		if status != c.status || !strings.Contains(out, c.says) {
			t.Errorf("%s: exit status %d, want %d: %s", c.what, status, c.status, out)
		}
		if strings.Contains(out, gone) {
			t.Errorf("%s: a path, for whoever reads the bounce: %s", c.what, out)
		}
	}
	if _, err := os.Stat(gone); !os.IsNotExist(err) {
		t.Errorf("the home that is not mounted: %v", err)
	}
	oneMessage(t, filepath.Join(home, "Maildir"))

	// A user's .forward cannot write to the daemon's state directory.
	removeMessages(t, filepath.Join(home, "Maildir"))
	away := filepath.Join(dir, "away.toml")
	writeFile(t, away, strings.ReplaceAll(readFile(t, file), dir+"/state", dir+"/nobodys"))
	big := "Subject: big\n\n" + strings.Repeat(strings.Repeat("x", 76)+"\n", 20000)
	if status, out := deliver(away, big, "user@example.org"); status != 0 {
		t.Errorf("without the state directory: exit status %d: %s", status, out)
	}
	if m := oneMessage(t, filepath.Join(home, "Maildir")); !strings.HasSuffix(string(m.content), big) {
		t.Error("not the message that was sent")
	}
}
