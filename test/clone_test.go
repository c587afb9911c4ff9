package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestClones: a large message to users whose names differ in length takes the room of
// one copy on xfs, and is whole for each of them.
func TestClones(t *testing.T) {
	t.Parallel()
	needRoot(t, "mount")
	mkfs := need(t, "mkfs.xfs")[0]
	users := []string{"a", "bob", "somebody", "somebody.with.a.longer.name", "x.y", "z"}
	s := startPlainSite(t, users...)
	mail, image := filepath.Join(s.dir, "mail"), filepath.Join(s.dir, "image")
	writeFile(t, image, "")
	if err := os.Truncate(image, 400<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "", mkfs, "-q", "-m", "reflink=1", image)
	if out, err := exec.Command("mount", "-o", "loop", image, mail).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mail, 0); err != nil {
			t.Error(err)
		}
	})
	var to []string
	for _, user := range users {
		mkdir(t, s.home(user), nil)
		to = append(to, user+"@example.org")
	}
	used := func() int64 {
		syscall.Sync()
		var st syscall.Statfs_t
		if err := syscall.Statfs(mail, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Blocks-st.Bfree) * int64(st.Bsize)
	}
	before := used()
	message := header + "\r\n" + strings.Repeat("0123456789abcdef0123456789abcdef\r\n", 120_000)
	c := dial(t, s.sock)
	c.expect(t, "250", "LHLO client.example.net")
	for _, r := range c.send(t, "sender@example.net", "", to, []byte(message), len(to)) {
		if !strings.HasPrefix(r, "250 2.0.0 ") {
			t.Error(r)
		}
	}
	if took := used() - before; took > int64(len(message))*2 {
		t.Errorf("%d octets for %d copies of a message of %d", took, len(to), len(message))
	}
	for i, user := range users {
		m := oneMessage(t, s.maildir(user))
		if !strings.HasSuffix(string(m.content), string(asStored([]byte("\r\n"+message)))) || !strings.Contains(string(m.content), "Delivered-To: "+to[i]+"\n") {
			t.Errorf("%s has %d octets: %.300q", user, len(m.content), m.content)
		}
	}
	s.stop(t)
}
