package maildir

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHasJournal(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"dev/block", "devices/virtual/block", "fs/ext4/with", "fs/ext4/without"} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for disk, task := range map[string]string{"with": "4711\n", "without": "<none>\n"} {
		if err := os.WriteFile(filepath.Join(sys, "fs/ext4", disk, "journal_task"), []byte(task), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for number, disk := range map[string]string{"8:1": "with", "8:2": "without", "8:3": "ext2"} {
		if err := os.Symlink("../../devices/virtual/block/"+disk, filepath.Join(sys, "dev/block", number)); err != nil {
			t.Fatal(err)
		}
	}
	for dev, want := range map[device]bool{{8, 1}: true, {8, 2}: false, {8, 3}: false, {8, 4}: false} {
		if got := hasJournal(sys, dev); got != want {
			t.Errorf("device %v: %v, want %v", dev, got, want)
		}
	}
}

// Where the kernel says that an ext4 has no journal, the way is by tmp/.
func TestLinksLate(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	id, _, _, err := identify(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Durability{Full, FileOnly, None} {
		w := &Writer{Durability: d}
		late := w.linksLate(int(f.Fd()), id.dev)
		if late && d != Full {
			t.Errorf("durability %v goes by tmp/", d)
		}
		delivered(t, w, Target{Root: dir, Path: d.String()}, "x\n")
		if w.named.has(id.dev) != late {
			t.Errorf("durability %v: by tmp/ %v, want %v", d, !late, late)
		}
	}
}
