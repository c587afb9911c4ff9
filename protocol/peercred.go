package protocol

// PeerCred is who is at the other end of a Unix socket, as the kernel noted it when
// the connection was made (SO_PEERCRED): what a Policy may go by where there is no
// address.
type PeerCred struct {
	PID      int
	UID, GID uint32
}
