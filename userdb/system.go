package userdb

import (
	"context"
	"time"
)

// System is the login accounts of this machine. The zero value works.
type System struct {
	MinUID    uint32        // accounts below it get no mail; 0: 1000
	KnownUser string        // an account that every remote name service here must know; see System
	TrustNSS  []string      // NSS sources whose "not found" is believed although they may be remote
	Timeout   time.Duration // for one lookup; 0: 10 seconds
	Parallel  int           // lookups at once; 0: 8

	Socket     string // systemd's user database; "": /run/systemd/userdb/io.systemd.Multiplexer
	Getent     string // absolute path of getent; "": found in PATH
	PasswdFile string // "": /etc/passwd
	GroupFile  string // "": /etc/group
	NSSwitch   string // "": /etc/nsswitch.conf
}

// Lookup finds the account whose name is the address's local part.
func (s *System) Lookup(ctx context.Context, a Address) (*User, error) { return nil, ErrNoSuchUser }

func (s *System) String() string { return "system" }
