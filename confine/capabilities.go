package confine

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capability is a number of capabilities(7).
type Capability uint

// The ones that lmtpd has a use for.
const (
	SetGID         Capability = unix.CAP_SETGID
	SetUID         Capability = unix.CAP_SETUID
	NetBindService Capability = unix.CAP_NET_BIND_SERVICE
)

// String is the name in capabilities(7) for the constants above, else a number.
func (c Capability) String() string {
	switch c {
	case SetGID:
		return "cap_setgid"
	case SetUID:
		return "cap_setuid"
	case NetBindService:
		return "cap_net_bind_service"
	}
	return fmt.Sprintf("cap_%d", uint(c))
}

const lastCapability = 63 // of the 64 bits that capset has

// keep gives up all capabilities but these, and what could bring any back.
func keep(caps []Capability) error {
	// Ambient ones go first, so that children get none. EINVAL: before Linux 4.3.
	if err := everywhere(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	// The bounding set needs CAP_SETPCAP. Without it there is nothing to do: with
	// no_new_privs nothing is gained by executing a file.
	for c := Capability(0); c <= lastCapability; c++ {
		if slices.Contains(caps, c) {
			continue
		}
		if n, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil || n == 0 {
			continue
		}
		if everywhere(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(c), 0) != nil {
			break
		}
	}
	_, data, err := capget()
	if err != nil {
		return err
	}
	var wanted [2]uint32
	for _, c := range caps {
		wanted[c/32] |= 1 << (c % 32)
	}
	changed := false
	for i := range data {
		old := data[i]
		data[i].Permitted &= wanted[i]
		data[i].Effective &= wanted[i]
		data[i].Inheritable = 0
		changed = changed || data[i] != old
	}
	if !changed {
		return nil // capset may be forbidden by a filter, and it would do nothing
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	return everywhere(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
}

// held is what the calling thread may still use.
func held() (caps []Capability, err error) {
	_, data, err := capget()
	for c := Capability(0); c <= lastCapability && err == nil; c++ {
		if data[c/32].Permitted&(1<<(c%32)) != 0 {
			caps = append(caps, c)
		}
	}
	return caps, err
}

func capget() (hdr unix.CapUserHeader, data [2]unix.CapUserData, err error) {
	hdr.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err = unix.Capget(&hdr, &data[0]); err != nil {
		err = os.NewSyscallError("capget", err)
	}
	return hdr, data, err
}
