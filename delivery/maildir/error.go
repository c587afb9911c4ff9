package maildir

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Causes that a caller may want to tell apart with errors.Is. Everything else
// is an errno or the context's error.
var (
	// ErrRoot: the mailbox root is missing or no directory, as when a home is not mounted.
	ErrRoot = errors.New("mailbox root is not there")
	// ErrOwner: the owner is one that mail is never written as.
	ErrOwner = errors.New("owner is not allowed")
	// ErrPath: the target's root is not absolute, or its path could leave the root.
	ErrPath = errors.New("path is not allowed")
)

// Steps of a delivery, as they appear in Error.Op and are passed to Writer.Before.
const (
	OpCheck      = "check"          // looking at the target before anything is touched
	OpWait       = "wait"           // waiting for a free slot
	OpBecome     = "become owner"   // switching the thread's credentials
	OpRestore    = "restore owner"  // switching them back
	OpRoot       = "open root"      // opening the mailbox root
	OpOpen       = "open"           // opening a directory below it
	OpMkdir      = "mkdir"          // making one
	OpChmod      = "chmod"          // setting a mode that the umask took away
	OpSyncParent = "sync parent"    // syncing a directory that got a new directory
	OpSeek       = "look for copy"  // looking for a copy that may have been delivered before
	OpQuota      = "check quota"    // looking at what the mailbox holds, and noting it
	OpUnnamed    = "create unnamed" // opening an O_TMPFILE
	OpCreate     = "create"         // creating a file in tmp/
	OpRead       = "read body"      // reading the spooled body
	OpWrite      = "write"          // writing header and body
	OpClone      = "clone"          // sharing the blocks of another copy's file
	OpWriteBack  = "write back"     // waiting for the file's content, to sync it when it is named
	OpSync       = "sync"           // syncing the file before it is named
	OpLink       = "link"           // giving the unnamed file its name in new/
	OpRename     = "rename"         // the same from tmp/
	OpSyncNamed  = "sync named"     // syncing the file with its name
	OpSyncDir    = "sync directory" // syncing new/
	OpRemove     = "remove"         // removing a file that was not delivered
	OpStale      = "remove stale"   // removing a file that a crash has left in tmp/
)

// Error says what failed for one copy.
type Error struct {
	Op       string // an Op constant
	Path     string // what it was done to
	UID, GID uint32 // whom the kernel checked the access for
	Err      error  // errors.Is finds the errno, the context's error, ErrRoot, ErrOwner or ErrPath
	Missing  string // for EACCES, best effort: the permission bit that is missing, and where
}

// Error gives everything in one line. It is meant for the log, not for a client.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "maildir: %s %s: %v (uid %d, gid %d", e.Op, e.Path, e.Err, e.UID, e.GID)
	if e.Missing != "" {
		b.WriteString(": ")
		b.WriteString(e.Missing)
	}
	b.WriteByte(')')
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// fail makes an *Error of err, unless it is one already. It is called with the
// credentials that the step had, so that the search for the missing bit asks
// the kernel as the owner.
func (d *delivery) fail(op, path string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	e = &Error{Op: op, Path: path, Err: err}
	if o := d.t.Owner; o != nil {
		e.UID, e.GID = o.UID, o.GID
	} else {
		e.UID, e.GID = uint32(unix.Geteuid()), uint32(unix.Getegid())
	}
	switch {
	case errors.Is(err, unix.EACCES):
		e.Missing = missing(op, path)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		if what := obstacle(d.t.Root, path); what != "" {
			e.Err = fmt.Errorf("%w: %s", err, what)
		}
	}
	return e
}

// missing names the first permission bit that stands between the calling thread
// and path: search on one of its ancestors, or what op needs of the directory.
func missing(op, path string) string {
	need, bit := uint32(unix.R_OK), "r"
	switch op {
	case OpUnnamed:
		need, bit = unix.W_OK, "w"
	case OpMkdir, OpCreate, OpLink, OpRename, OpRemove, OpStale:
		path = filepath.Dir(path)
		need, bit = unix.W_OK, "w"
	}
	for dir := range ancestors(path) {
		switch err := unix.Faccessat(unix.AT_FDCWD, dir, unix.X_OK, unix.AT_EACCESS); err {
		case nil:
		case unix.EACCES:
			return describe("x", dir)
		default:
			return ""
		}
	}
	if unix.Faccessat(unix.AT_FDCWD, path, need, unix.AT_EACCESS) == unix.EACCES {
		return describe(bit, path)
	}
	return ""
}

func describe(bit, dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return fmt.Sprintf("missing +%s on %s", bit, dir)
	}
	return fmt.Sprintf("missing +%s on %s, which has mode %04o and belongs to %d:%d",
		bit, dir, st.Mode&0o7777, st.Uid, st.Gid)
}

// obstacle names the first thing between root and path that is no directory.
func obstacle(root, path string) string {
	for dir := range ancestors(path) {
		var st unix.Stat_t
		if len(dir) < len(root) || unix.Lstat(dir, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		what := "file"
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if dir == root { // links in the root are followed
				continue
			}
			what = "symbolic link"
		case unix.S_IFIFO:
			what = "FIFO"
		case unix.S_IFSOCK:
			what = "socket"
		case unix.S_IFBLK, unix.S_IFCHR:
			what = "device"
		}
		return fmt.Sprintf("%s is a %s and not a directory", dir, what)
	}
	return ""
}

// ancestors yields "/", then each directory on the way to path, then path.
func ancestors(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := 0; i <= len(path); i++ {
			if i > 0 && i < len(path) && path[i] != '/' {
				continue
			}
			if !yield(path[:max(i, 1)]) {
				return
			}
		}
	}
}
