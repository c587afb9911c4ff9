//go:build 386 || arm

package maildir

import "golang.org/x/sys/unix"

// The call without 32 in its name takes 16-bit group ids here.
const sysSetgroups = unix.SYS_SETGROUPS32
