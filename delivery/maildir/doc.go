// Package maildir writes messages into Maildirs durably.
//
// It knows nothing of SMTP. It takes plain data (owner, directory, header) and
// a body in memory or in an open file, and can add a message to a mailbox and
// nothing else: it neither reads nor removes a message that it did not write
// in the same call. (What a crash has left in tmp/ is no message; if asked to, a Writer
// removes it after 36 hours, see stale.go.)
//
// # Order of a delivery
//
// With durability "full" the steps of one copy are, strictly in this order:
//
//  1. open new/ below the mailbox root; missing directories are created and
//     every directory that got a new entry is synced,
//  2. open an unnamed file (O_TMPFILE), or tmp/NAME where the file system has
//     no unnamed files or would lose them (journal.go),
//  3. write header and body, each octet once,
//  4. bring the content to disk: sync the file, or (below) wait until it is written back,
//  5. give it its name in new/ (linkat, or renameat2 from tmp/),
//  6. sync new/, which brings with it what of the file is not yet on disk, or take part
//     in another delivery's sync that does,
//  7. report.
//
// A reader therefore never sees an incomplete file, and a copy reported without
// an error survives a power cut. Nothing is reported as delivered before step 6.
//
// # One commit for many
//
// Each sync of something new commits the journal, and a delivery alone spends most of
// its time in its two commits. One does where a name cannot become durable before the
// content: then it is enough to write the content back and wait for that
// (sync_file_range), give the name, and sync the directory. And as a commit brings
// everything to disk that came before it, the deliveries of one moment share it
// (commits.go): one of them asks for it when all are named, the others wait. That is 1.4
// to 1.9 times as fast for one delivery at a time; of many at a time it saves the disk
// half of what it writes, and the processor two waits in the kernel for each file.
//
// No call promises it, so it is done only where the file system itself does, and the
// power was cut to see (test/powercut: at no point of the write logs was there half a
// message, and none that was acknowledged was missing):
//
//   - ext4 with a journal on the same device, in any data mode. Write-back ends after
//     the extents of the content have become part of a transaction (with unwritten
//     extents, after they were converted). The name joins that transaction or a later
//     one. Before a transaction's commit record the device's cache is flushed, with the
//     content that was in it. Where the journal is on another device, only that one is
//     flushed. A sync of a directory waits for the transaction that last changed it, and
//     transactions are committed in their order. (Its feature fast_commit, which mkfs
//     does not set, stood the cuts with no order of steps: some disks could not be
//     mounted again.)
//   - xfs: write-back ends after the change of size or extents is in the log, which
//     keeps the order of its entries, and the data device is flushed before the log. A
//     sync of a directory forces the log up to its last change, with all before it.
//
// Not on btrfs, though cuts found nothing there: write-back ends before the extent is
// in the tree, and the commit of another writer may come between. Not on ext4 without
// a journal, which keeps no order; on network file systems; or on what is not known.
// There step 4 is a sync of the file, which asks only for what fsync promises.
// SyncStrict asks for that everywhere.
//
// # Without a journal
//
// On ext4 without a journal, and on ext2, syncs of one directory that overlap may end
// before it is on disk, so they are kept apart (dirsync.go). That cannot be done with those
// of other processes: while a reader moves mail of the same mailbox to cur/ and syncs
// new/, a power cut may take the name of a message acknowledged in that moment.
//
// Nor is a change to several blocks of such a file system ever whole. With an index
// (dir_index, which mkfs.ext4 gives) a directory moves half of a full block's names into
// a new one. A cut in between takes them, acknowledged long ago or not. fsck puts files
// that have no name left into lost+found; of copies that are links, it does not even
// that. Without an index (mkfs.ext4 -O ^has_journal,^dir_index) names stay where they
// are, and the cuts of test/powercut find every message. A directory of many extents
// can still lose its last blocks to fsck, into lost+found.
//
// # Many copies of one message
//
// The copies of one call go through these steps in phases: all are written (steps 1
// to 3, and the disk is told to begin), then all are synced, then all are named,
// then each directory is synced, where one commit does not do for all. The first sync
// of a phase commits the journal for the others, which makes this several times as fast as one copy after the other
// (phases.go). Each copy keeps its own error, and the order of its own steps is the
// one above. A copy that hangs in a system call is let go its own way after a
// quarter of a second, so that the others need not wait for it.
//
// # One file for many copies
//
// Targets with Share set, one owner and one header may be one file with several names
// (share.go). One copy writes it and brings its content to disk as above; then each
// gives it a name, and each directory is synced, and the file once more for its count of
// links; or one commit does both. No copy depends on the one that wrote the file: it
// stays open for all of them, and what cannot be linked is written again.
//
// Copies of a large body are clones of one of them where the file system can share
// blocks, also between owners; to everybody they look like copies (clone.go).
//
// # Loss or duplicate
//
// The context is looked at before each step up to the naming and never after
// it: once a message has its name a reader may have it, so it is seen through.
// If the last sync fails the message is not known to be durable. It is then
// reported as failed, because a second copy is better than none, and the name
// is removed again (best effort) so that the redelivery usually makes no
// second copy. If the removal fails as well, or a reader has moved the file to
// cur/, the redelivery makes one.
//
// File systems differ in what a sync means. Where a directory cannot be synced
// at all the copy fails: an administrator who trusts that file system says so
// with durability "file".
//
// The parents of a mailbox are synced not only by the delivery that made it: one
// that comes a moment later may overtake the first. So each Writer syncs them
// once for each mailbox younger than a few minutes, whoever made it.
//
// # Where it may write
//
// The root of a target is opened as configured (links in it are the
// administrator's) and must exist: a home that is not mounted is never filled.
// Below the root everything is resolved by openat2 with RESOLVE_BENEATH and
// RESOLVE_NO_SYMLINKS relative to the root's descriptor, so that no link
// planted by a user is followed. Linux 5.6 or newer is needed. Where a target
// names its owner, new/ and tmp/ must belong to him or to root.
//
// A folder that does not exist (no directory, or one without new/) is made if the
// target says so (folder.go). Else it is the INBOX, and so is a name that cannot
// be a folder's: it is the sender who chooses it, and his mistake must not hold the
// mail up. One that exists and cannot be used is an error.
//
// # Privileges
//
// A target may name an owner. Its steps then run on a locked thread with the
// owner's fsuid, fsgid and supplementary groups, and the kernel checks every
// access as that user (owner.go).
package maildir
