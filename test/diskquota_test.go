package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mountBtrfs returns a file system of the test's own that keeps quotas by directory,
// and a function that makes such a directory with a limit in octets (0: none).
func mountBtrfs(t *testing.T) (dir string, subvolume func(name string, limit int64) string) {
	t.Helper()
	needRoot(t, "mount a file system")
	need(t, "mkfs.btrfs", "btrfs")
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "", "mkfs.btrfs", "-q", "-f", image)
	dir = tempDir(t)
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no loop device can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if out, err := exec.Command("btrfs", "quota", "enable", dir).CombinedOutput(); err != nil {
		t.Skipf("this kernel's btrfs has no quotas: %v: %s", err, out)
	}
	return dir, func(name string, limit int64) string {
		path := filepath.Join(dir, name)
		run(t, "", "btrfs", "subvolume", "create", path)
		if limit > 0 {
			run(t, "", "btrfs", "qgroup", "limit", fmt.Sprint(limit), path)
		}
		return path
	}
}

// TestDiskQuota: where the file system refuses to write more for a user, his mailbox is
// full like one that is over lmtpd's own quota, and nobody else's is.
func TestDiskQuota(t *testing.T) {
	t.Parallel()
	_, subvolume := mountBtrfs(t)
	owner := &syscall.Credential{Uid: 64101, Gid: 64201}
	dir := tempDir(t)
	bob, other := subvolume("bob", 3<<20), subvolume("other", 0)
	for _, d := range []string{dir + "/sockets", bob, other} {
		mkdir(t, d, owner)
	}
	writeFile(t, filepath.Join(dir, "users"), "bob@example.org:::::"+bob+"::\nother@example.org:::::"+other+"::\n")
	config := fmt.Sprintf(`
hostname = "mx.example.org"
[[listen]]
name = "lmtp"
address = "unix:%[1]s/sockets/lmtp.sock"
mode = "0666"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
`, dir)
	a := startLMTPD(t, agentOptions{dir: dir, as: owner, config: config})
	c := dial(t, dir+"/sockets/lmtp.sock")
	c.expect(t, "250", "LHLO client.example.net")
	both := []string{"bob@example.org", "other@example.org"}
	message := []byte(header + "\r\n" + strings.Repeat(strings.Repeat("x", 62)+"\r\n", 4096))
	delivered, full := 0, ""
	for range 30 {
		r := c.send(t, "", "", both, message, 2)
		if !strings.HasPrefix(r[1], "250 2.0.0 ") {
			t.Fatalf("the other's: %q", r)
		}
		if !strings.HasPrefix(r[0], "250 2.0.0 ") {
			full = r[0]
			break
		}
		delivered++
	}
	if !strings.HasPrefix(full, "452 4.2.2 Mailbox is full") || delivered < 5 {
		t.Errorf("after %d messages: %q", delivered, full)
	}
	a.stderr.await(t, `to=bob@example\.org.* status=deferred code=452 enhanced=4\.2\.2 .*disk quota exceeded`)
	if n := len(messages(t, filepath.Join(bob, "Maildir"))); n != delivered {
		t.Errorf("%d messages, and %d were acknowledged", n, delivered)
	}
	if n := len(messages(t, filepath.Join(other, "Maildir"))); n != delivered+1 {
		t.Errorf("the other's: %d messages, and %d were acknowledged", n, delivered+1)
	}

	writeFile(t, a.config, config+"[mailbox]\nover_quota = \"permanent\"\n")
	a.signal(t, syscall.SIGHUP)
	a.awaitState(t, "RELOADING=1")
	a.awaitState(t, "READY=1")
	if r := c.send(t, "", "", both, message, 2); !strings.HasPrefix(r[0], "552 5.2.2 ") || !strings.HasPrefix(r[1], "250 2.0.0 ") {
		t.Errorf("permanent: %q", r)
	}
	c.expect(t, "221", "QUIT")
	a.stop(t)
}
