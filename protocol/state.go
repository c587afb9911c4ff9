package protocol

// State is where a session stands, for Server.ConnState.
type State uint8

const (
	StateNew    State = iota // accepted; PROXY, TLS from the start and the greeting are to come
	StateIdle                // greeted, and outside of a transaction
	StateActive              // within a transaction, from MAIL to the last reply
	StateClosed              // over; the connection is about to be closed
)

func (st State) String() string {
	return [...]string{"new", "idle", "active", "closed"}[st]
}

// enter tells ConnState of a change.
func (s *Session) enter(st State) {
	s.state = st
	if f := s.srv.ConnState; f != nil {
		f(s, st)
	}
}
