package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Naming an unnamed file changes the file as well: its count of links goes from
// none to one. A journal commits that with the entry in the directory. ext4
// without a journal, and ext2, write only the directory when it is synced; after
// a power cut the entry then points to a file that counts as deleted, and fsck
// removes it. A file that has had a name since before its own sync has none of
// this, so there the way is by tmp/.

// linksLate reports whether an unnamed file must not be used on the file system of
// an open directory.
func (w *Writer) linksLate(fd int, dev device) bool {
	if w.Durability != Full || w.journaled.has(dev) {
		return false
	}
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC && !hasJournal("/sys", dev) {
		return true
	}
	w.journaled.add(dev)
	return false
}

// hasJournal reports whether the ext4 on a device is known to have a journal. The
// one of an ext2 driver, or below a sandbox that hides sys, is not.
func hasJournal(sys string, dev device) bool {
	disk, err := os.Readlink(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", dev.major, dev.minor)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile(filepath.Join(sys, "fs/ext4", filepath.Base(disk), "journal_task"))
	return err == nil && strings.TrimSpace(string(task)) != "<none>"
}
