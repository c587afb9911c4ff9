package confine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Path is a directory, with all that is below it, or a file, and what may be done
// there. A path that does not exist is left out. A file that is replaced is another
// file, so name its directory where that may happen.
type Path struct {
	Name   string
	Access Access
}

// Access is a set of things that may be done.
type Access uint

const (
	Read    Access = 1 << iota // read files and directories
	List                       // read directories
	Execute                    // execute files
	Write                      // make, open for writing and truncate files
	Dirs                       // make directories
	Remove                     // remove files, and move them between directories
	Sockets                    // make sockets
)

// rights are those of the kernel that each Access means.
var rights = map[Access]uint64{
	Read:    unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR,
	List:    unix.LANDLOCK_ACCESS_FS_READ_DIR,
	Execute: unix.LANDLOCK_ACCESS_FS_EXECUTE,
	Write:   unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_MAKE_REG,
	Dirs:    unix.LANDLOCK_ACCESS_FS_MAKE_DIR,
	Remove:  unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REFER,
	Sockets: unix.LANDLOCK_ACCESS_FS_MAKE_SOCK,
}

// ofFiles are the rights that a rule for something other than a directory may give.
const ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
	unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE

// known returns all file rights of a version of the interface (landlock(7)).
func known(abi int) uint64 {
	all := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1)
	if abi >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// errMoves: the first version of Landlock forbids to move files between directories
// and has no way to allow it.
var errMoves = errors.New("this kernel's version 1 cannot allow files to be moved; Linux 5.19 can")

// restrict limits the process to p.Paths and returns the version of the interface.
func (p Plan) restrict() (abi int, err error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch abi = int(n); {
	case errno == unix.ENOSYS || errno == unix.EOPNOTSUPP:
		return 0, errors.New("this kernel does not have it, or it is switched off")
	case errno != 0:
		return 0, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	for _, path := range p.Paths {
		if abi < 2 && path.Access&Remove != 0 {
			return 0, errMoves
		}
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: known(abi)}
	n, _, errno = unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	ruleset := int(n)
	defer unix.Close(ruleset)
	for _, path := range p.Paths {
		if err := allow(ruleset, attr.Handled_access_fs, path); err != nil {
			return 0, err
		}
	}
	if err := everywhere(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); err != nil {
		return 0, err
	}
	return abi, nil
}

// allow adds the rule for one path.
func allow(ruleset int, known uint64, path Path) error {
	fd, err := unix.Open(path.Name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.EACCES {
		return nil // what cannot be reached need not be allowed
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path.Name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path.Name, err)
	}
	rule := unix.LandlockPathBeneathAttr{Parent_fd: int32(fd)}
	for a, right := range rights {
		if path.Access&a != 0 {
			rule.Allowed_access |= right
		}
	}
	rule.Allowed_access &= known
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rule.Allowed_access &= ofFiles
	}
	if rule.Allowed_access == 0 {
		return nil
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("rule for %s: %w", path.Name, errno)
	}
	return nil
}
