package writer

import (
	"fmt"
	"os"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// The writer process shares files as the front asks, and never between owners or
// headers, whatever the front says.
func TestShare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot become owners")
	}
	root, err := os.MkdirTemp("/dev/shm", "lw")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	if err := os.Chmod(root, 0o711); err != nil {
		t.Fatal(err)
	}
	var targets []maildir.Target
	for i, uid := range []uint32{64101, 64101, 64102, 64102, 64101, 64101} {
		home := fmt.Sprint(root, "/", i)
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(home, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
		targets = append(targets, maildir.Target{
			Root: home, Path: "Maildir", Owner: &maildir.Owner{UID: uid, GID: uid}, Header: []byte("A: b\n"), Share: i < 5,
		})
	}
	targets[4].Header = []byte("C: d\n")
	c := pair(t, &Server{Writer: &maildir.Writer{}})
	var infos []os.FileInfo
	for i, r := range deliver(t, t.Context(), c, text("x\n"), targets...) {
		if r.Err != nil {
			t.Fatalf("target %d: %v", i, r.Err)
		}
		info, err := os.Stat(r.File)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
	}
	for i, a := range infos {
		for j, b := range infos[:i] {
			same := i == 1 && j == 0 || i == 3 && j == 2
			if got := os.SameFile(a, b); got && !same {
				t.Errorf("targets %d and %d share a file", j, i)
			}
		}
	}
}

// The wish to share survives the way to the writer.
func TestShareTravels(t *testing.T) {
	for _, want := range []bool{false, true} {
		target := maildir.Target{Root: "/home/x", Share: want}
		b := appendTarget(nil, &target)
		got, err := decodeTarget(b[frameHead:])
		if err != nil || got.Share != want {
			t.Errorf("%t, %v; want %t", got.Share, err, want)
		}
	}
}
