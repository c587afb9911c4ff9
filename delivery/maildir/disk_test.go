package maildir

import (
	"os"
	"path/filepath"
	"testing"
)

func TestJournalOf(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"sys/dev/block", "sys/fs/ext4/with", "sys/fs/ext4/apart", "sys/fs/ext4/without"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for disk, task := range map[string]string{"with": "4711\n", "apart": "4712\n", "without": "<none>\n"} {
		if err := os.WriteFile(filepath.Join(root, "sys/fs/ext4", disk, "journal_task"), []byte(task), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for number, disk := range map[string]string{"8:1": "with", "8:2": "without", "8:3": "ext2", "8:5": "apart"} {
		if err := os.Symlink("../../devices/virtual/block/"+disk, filepath.Join(root, "sys/dev/block", number)); err != nil {
			t.Fatal(err)
		}
	}
	check := func(apart journal) {
		for dev, want := range map[device]journal{
			{8, 1}: journalInside, {8, 2}: journalNone, {8, 3}: journalNone, {8, 4}: journalNone, {8, 5}: apart,
		} {
			if got := journalOf(root, dev); got != want {
				t.Errorf("device %v: %v, want %v", dev, got, want)
			}
		}
	}
	check(journalInside) // nothing to be seen in /proc
	for _, name := range []string{"with-8", "journals", "apart-x"} {
		if err := os.MkdirAll(filepath.Join(root, "proc/fs/jbd2", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	check(journalOutside)
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
		late := w.disk(int(f.Fd()), id.dev).classic
		if late && d != Full {
			t.Errorf("durability %v goes by tmp/", d)
		}
		delivered(t, w, Target{Root: dir, Path: d.String()}, "x\n")
		if k, _ := w.disks.get(id.dev); k.classic != late {
			t.Errorf("durability %v: by tmp/ %v, want %v", d, !late, late)
		}
	}
}

// anyClassic reports whether a Writer has found a file system without unnamed files.
func anyClassic(w *Writer) bool {
	for _, k := range w.disks.m {
		if k.classic {
			return true
		}
	}
	return false
}
