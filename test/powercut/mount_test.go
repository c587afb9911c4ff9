package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// filesystem is one that is tried.
type filesystem struct {
	name   string
	typ    string
	size   int64
	mkfs   []string // the disk's path follows
	fsck   []string // the same; must change nothing and find nothing
	repair []string // run before the mount, where there is no journal to replay
	rescue []string // run where it does not mount: it puts a copy of the superblock in its place
	data   string   // mount options
	needs  string   // program of mkfs
}

const mib = 1 << 20

var (
	ext4 = filesystem{
		name: "ext4", typ: "ext4", size: 256 * mib, needs: "mkfs.ext4",
		mkfs: []string{"mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"},
		fsck: []string{"e2fsck", "-fn"}, rescue: []string{"e2fsck", "-fy"},
	}
	xfs = filesystem{
		name: "xfs", typ: "xfs", size: 320 * mib, needs: "mkfs.xfs",
		mkfs: []string{"mkfs.xfs", "-q", "-f", "-K"},
		fsck: []string{"xfs_repair", "-n", "-f"},
	}
	btrfs = filesystem{
		name: "btrfs", typ: "btrfs", size: 256 * mib, needs: "mkfs.btrfs",
		mkfs: []string{"mkfs.btrfs", "-q", "-f", "-K"},
		fsck: []string{"btrfs", "check", "--readonly"}, rescue: []string{"btrfs", "rescue", "super-recover", "-y"},
	}
	filesystems = []filesystem{ext4, xfs, btrfs}

	ext4Writeback = with(ext4, "ext4 data=writeback", "data=writeback", nil)
	ext4Journal   = with(ext4, "ext4 data=journal", "data=journal", nil)
	ext4NoJournal = with(ext4, "ext4 without journal", "", []string{"-O", "^has_journal"})
	ext4Unindexed = with(ext4, "ext4 without journal, unindexed", "", []string{"-O", "^has_journal,^dir_index"})
)

func with(f filesystem, name, data string, mkfs []string) filesystem {
	f.name, f.data = name, data
	f.mkfs = append(append([]string(nil), f.mkfs...), mkfs...)
	if len(mkfs) > 0 {
		f.repair = []string{"e2fsck", "-fy"}
	}
	return f
}

// attach makes the file a block device until its last user is gone.
func attach(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 { // others look for one too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		loop, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, os.ErrExist) {
				return nil, err
			}
			loop, err = os.OpenFile(name, os.O_RDWR, 0)
		}
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{
			Fd:   uint32(backing.Fd()),
			Size: sectorSize,
			Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO | unix.LO_FLAGS_AUTOCLEAR},
		})
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil, errors.New("no free loop device")
}

// mount mounts the disk at dir. The device goes with the mount.
func (f *filesystem) mount(disk, dir string) error {
	loop, err := attach(disk)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), dir, f.typ, unix.MS_NOATIME, f.data); err != nil {
		return fmt.Errorf("mounting %s: %w", f.name, err)
	}
	return nil
}

func unmount(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	return nil
}

// command runs one of the file system's programs on the disk.
func (f *filesystem) command(args []string, disk string) error {
	out, err := exec.Command(args[0], append(append([]string(nil), args[1:]...), disk)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// needs skips the test where this file system cannot be made or mounted.
func (f *filesystem) need(t *testing.T) {
	t.Helper()
	needFuse(t)
	need(t, f.needs, f.fsck[0])
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices: %v", err)
	}
	control.Close()
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || !strings.Contains(string(known), "\t"+f.typ+"\n") {
		t.Skipf("this kernel does not know %s", f.typ)
	}
}
