package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// setAccess gives the socket file the owner, group and mode of lc.
func (s *socket) setAccess(lc listenConfig) error {
	if lc.Address.Network != "unix" {
		s.config = lc
		return nil
	}
	uid, err := lookupID("user", lc.Owner)
	if err != nil {
		return err
	}
	gid, err := lookupID("group", lc.Group)
	if err != nil {
		return err
	}
	// By descriptor, so that a link put into the place of the socket is not followed.
	const oPath = 0x200000 // O_PATH
	path := lc.Address.Address
	fd, err := syscall.Open(path, oPath|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return unixProblem(path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if info, err := file.Stat(); err != nil || !os.SameFile(info, s.file) {
		return &valueError{path + " has been replaced by another file", "see who does that, or use another address"}
	}
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	if uid >= 0 || gid >= 0 {
		if err := os.Chown(self, uid, gid); err != nil {
			return &valueError{fmt.Sprintf("uid %d may not give %s to owner %q, group %q: %v", os.Geteuid(), path, lc.Owner, lc.Group, errnoOf(err)), "make it a member of that group, or let systemd open the socket (SocketUser=, SocketGroup=)"}
		}
	}
	if err := os.Chmod(self, os.FileMode(lc.Mode)); err != nil {
		return &valueError{fmt.Sprintf("the mode of %s cannot be set: %v", path, errnoOf(err)), "mount /proc, or let systemd open the socket (SocketMode=)"}
	}
	s.config = lc
	return nil
}

// lookupID returns the number of a user or group given by name or number, -1 for "".
func lookupID(kind, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	var id string
	var err error
	if kind == "user" {
		var u *user.User
		if u, err = user.Lookup(name); err == nil {
			id = u.Uid
		}
	} else {
		var g *user.Group
		if g, err = user.LookupGroup(name); err == nil {
			id = g.Gid
		}
	}
	if err != nil {
		return 0, &valueError{"there is no " + kind + " " + quoted(name), "create it, or name one that exists (by name or number)"}
	}
	return strconv.Atoi(id)
}
