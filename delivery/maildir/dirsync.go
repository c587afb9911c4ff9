package maildir

import "golang.org/x/sys/unix"

// On ext4 without a journal, and on ext2, a sync of a directory may end before the
// directory is on disk: the kernel takes the blocks that are to be written off a list,
// and a second sync of the same directory, which finds the list empty, does not wait for
// the writes of the first (fsync_buffers_list, without the lock of the inode). So there
// one sync of a directory follows the other. Those who come while one is under way share
// the next, which begins after all their changes.
//
// That holds for one Writer. Another process that syncs the same directory, such as a
// reader that moves mail to cur/, can still make a sync of ours end too early.

// fsyncDir syncs an open directory.
func (d *delivery) fsyncDir(op, abs string, fd int) error {
	sync := func() error { return d.do(op, abs, func() error { return unix.Fsync(fd) }) }
	if d.disk.ordered {
		return sync()
	}
	id, _, _, err := identify(fd)
	if err != nil || !d.w.disk(fd, id.dev).overtakes {
		return sync()
	}
	all := &d.w.dirSyncs
	at, leads, before := all.enter(id)
	if !leads {
		// Where that one hangs, so would ours. An error of writing back that came before
		// the leader opened the directory is told only to those who had it open, and
		// the second call asks for it.
		if at.wait(stuckAfter) && unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE) == nil {
			return nil
		}
		return sync()
	}
	if before != nil {
		before.wait(stuckAfter)
	}
	all.close(id, at)
	err = sync()
	all.end(id, at, err == nil)
	return err
}
