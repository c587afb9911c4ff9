package protocol

import (
	"net"
	"testing"
	"time"
)

// TestProbeCrossesClosing: an RSET that has been read when the server's interrupt comes
// is answered like any other, and the session may begin its transaction.
func TestProbeCrossesClosing(t *testing.T) {
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	srv := &Server{Timeouts: Timeouts{Newcomer: time.Hour}}
	var i idleState
	i.begun()
	if err := i.begin(true, srv); err != nil {
		t.Fatal(err)
	}
	srv.beginClosing()
	i.close(conn, srv) // the session has read its RSET, and not said so yet
	i.busy()
	i.probed()
	if err := i.begin(true, srv); err != nil || !i.mayBegin(srv) {
		t.Errorf("after the RSET: %v, may begin %v", err, i.mayBegin(srv))
	}
	i.begun()
	i.busy()
	if err := i.begin(true, srv); err == nil {
		t.Error("it may begin another one")
	}
}
