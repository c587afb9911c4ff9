// Package powercut proves what lmtpd promises about power cuts and failing disks.
//
// # Power cuts
//
// A disk is a file of a FUSE server of our own, below a loop device with direct
// I/O. It logs every write and flush that the kernel sends, and between them the
// moment at which a client read the 250 of a recipient. lmtpd delivers into a
// file system on that disk. Afterwards the disk is rebuilt as it could have been
// at any point of the log: what a finished flush covers is there; of the later
// writes none, all, some, or some sectors of some. The kernel mounts that disk,
// replaying its journal, and then
//
//   - every recipient's copy that was acknowledged before the point must be
//     there, octet by octet, once,
//   - no file that a mail reader would take for a message may be anything but a
//     whole message: its name tells its size, its content was sent,
//   - the file system's own check must find nothing.
//
// A checker that finds nothing proves nothing. So lmtpd with durability "file" and
// "none", and writers of this package that take the steps in a wrong order, go
// through the same cuts and have to be caught.
//
// # Failing disks
//
// A FUSE file system that hands everything to a directory below it fails the nth
// call of one operation, or lets it wait, while the real lmtpd delivers there.
//
// # How it is run
//
// The package is a module of its own so that the FUSE library stays out of the
// product's. It needs root, /dev/fuse and loop devices and is skipped without
// them. Tests run in a mount namespace of their own, and loop devices go with the
// last mount, so that nothing is left however a run ends. Only a short part runs
// unless LMTPD_POWERCUT_POINTS says how many points each file system is to be
// cut at.
package powercut
