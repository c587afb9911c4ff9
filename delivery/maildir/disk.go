package maildir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// disk is what a Writer knows of a mounted file system, and what it chooses for it.
type disk struct {
	// classic: messages go by way of tmp/. Either there are no unnamed files, or
	// naming one would not last: it changes the file as well, whose count of links
	// goes from none to one. A journal commits that with the entry in the directory.
	// ext4 without a journal, and ext2, write only the directory when it is synced;
	// after a power cut the entry then points to a file that counts as deleted, and
	// fsck removes it. A file that has had a name since before its own sync has none
	// of this.
	classic bool
	// ordered: a name never becomes durable before content whose write-back had ended
	// when the name was given (see doc.go), so that both may be synced at once.
	ordered bool
	// overtakes: a sync of a directory may end before an earlier one of it (dirsync.go).
	overtakes bool
	// clones: files may share blocks, as far as is known.
	clones bool
}

// SyncOrder says when a file gets its name.
type SyncOrder int

const (
	// SyncAuto gives it where the file system is known to keep the order of writes
	// when the content has been written back, and syncs content and name together;
	// elsewhere it is SyncStrict.
	SyncAuto SyncOrder = iota
	// SyncStrict gives it when the file has been synced.
	SyncStrict
	// syncOnce is the first way of SyncAuto on any file system, for tests.
	syncOnce
)

var syncOrderNames = [...]string{SyncAuto: "auto", SyncStrict: "strict", syncOnce: "once"}

// String returns the name used in the configuration: auto or strict.
func (o SyncOrder) String() string {
	if o < 0 || int(o) >= len(syncOrderNames) {
		return fmt.Sprintf("order(%d)", int(o))
	}
	return syncOrderNames[o]
}

// UnmarshalText reads auto or strict.
func (o *SyncOrder) UnmarshalText(text []byte) error {
	for i, name := range syncOrderNames[:syncOnce] {
		if name == string(text) {
			*o = SyncOrder(i)
			return nil
		}
	}
	return fmt.Errorf("order %q is none of auto, strict", text)
}

// disk returns what is known of the file system of an open directory.
func (w *Writer) disk(fd int, dev device) disk {
	k, ok := w.disks.get(dev)
	if !ok {
		k = w.judge(fd, dev)
		w.disks.put(dev, k)
	}
	return k
}

// wantsTmp notes that messages go by way of tmp/ on a file system.
func (w *Writer) wantsTmp(dev device) {
	k, _ := w.disks.get(dev)
	k.classic = true
	w.disks.put(dev, k)
}

func (w *Writer) judge(fd int, dev device) disk {
	var k disk
	var st unix.Statfs_t
	if w.Durability != Full || unix.Fstatfs(fd, &st) != nil {
		return k
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC: // and that of ext2 and ext3
		journal := journalOf("/", dev)
		k.classic = journal == journalNone
		k.overtakes = k.classic
		k.ordered = journal == journalInside
	case unix.XFS_SUPER_MAGIC:
		k.ordered, k.clones = true, true
	case unix.BTRFS_SUPER_MAGIC:
		k.clones = true
	}
	switch w.Order {
	case SyncStrict:
		k.ordered = false
	case syncOnce:
		k.ordered = true
	}
	return k
}

// journal is what is known of the journal of an ext4.
type journal int

const (
	journalNone    journal = iota // none, or not known to be there
	journalInside                 // on the same device
	journalOutside                // on another one
)

// journalOf looks for the journal of the ext4 on a device, by /sys and /proc below
// root. The one of an ext2 driver, or below a sandbox that hides sys, is not known.
// Whether it is on another device can be seen by its name in /proc only; where that
// is hidden it is taken to be inside, as mkfs makes it.
func journalOf(root string, dev device) journal {
	link, err := os.Readlink(filepath.Join(root, "sys/dev/block", fmt.Sprintf("%d:%d", dev.major, dev.minor)))
	if err != nil {
		return journalNone
	}
	name := filepath.Base(link)
	task, err := os.ReadFile(filepath.Join(root, "sys/fs/ext4", name, "journal_task"))
	if err != nil || strings.TrimSpace(string(task)) == "<none>" {
		return journalNone
	}
	all, err := os.ReadDir(filepath.Join(root, "proc/fs/jbd2"))
	if err != nil {
		return journalInside
	}
	for _, e := range all { // "sda1-8": the journal is inode 8 of sda1
		if inode, ok := strings.CutPrefix(e.Name(), name+"-"); ok && strings.Trim(inode, "0123456789") == "" {
			return journalInside
		}
	}
	return journalOutside
}
