package writer

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// The writer process removes stale files after a delivery, without being asked, and
// the front learns how many with the next result.
func TestStaleFilesAreTold(t *testing.T) {
	root, err := os.MkdirTemp("/dev/shm", "lw")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	later := func() time.Time { return time.Now().Add(37 * time.Hour) }
	target := maildir.Target{Root: root, Path: "Maildir"}
	if os.Geteuid() == 0 {
		target.Owner = &maildir.Owner{UID: 64101, GID: 64201}
		if err := os.Chown(root, 64101, 64201); err != nil {
			t.Fatal(err)
		}
	}
	tmp := filepath.Join(root, "Maildir", "tmp")
	c := pair(t, &Server{Writer: &maildir.Writer{MinUID: 1}})
	if r := deliver(t, t.Context(), c, text("x\n"), target)[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	looked := make(chan maildir.Stale, 1)
	c = pair(t, &Server{Writer: &maildir.Writer{
		MinUID: 1, RemoveStale: true, Clock: later, Stale: func(s maildir.Stale) { looked <- s },
	}})
	for _, name := range []string{"1", "2"} {
		if err := os.WriteFile(filepath.Join(tmp, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := deliver(t, t.Context(), c, text("x\n"), target)[0]; r.Err != nil {
		t.Fatal(r.Err)
	}
	if s := <-looked; s.Removed != 2 || s.Err != nil || s.Dir != tmp {
		t.Errorf("%+v", s)
	}
	for i, want := range []int64{2, 0} {
		if r := deliver(t, t.Context(), c, text("x\n"), target)[0]; r.Err != nil || r.Stale != want {
			t.Errorf("%d: %+v", i, r)
		}
	}
}
