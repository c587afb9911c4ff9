package protocol

import (
	"context"
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

// TestInterruptWhileReplying: an interrupt that comes between the replies and the wait
// is not lost.
func TestInterruptWhileReplying(t *testing.T) {
	for name, interrupt := range map[string]func(*idleState, net.Conn, *Server){
		"crowded": func(i *idleState, conn net.Conn, srv *Server) { i.interrupt(conn, replyCrowded) },
		"closing": func(i *idleState, conn net.Conn, srv *Server) { srv.beginClosing(); i.close(conn, srv) },
	} {
		conn, other := net.Pipe()
		defer conn.Close()
		defer other.Close()
		srv, i := new(Server), new(idleState)
		srv.init()
		if err := i.begin(true, srv); err != nil {
			t.Fatal(err)
		}
		interrupt(i, conn, srv)
		if err := i.arm(conn, srv, time.Hour); err != errInterrupted || i.reason().Code != 421 {
			t.Errorf("%s: %v, reason %v", name, err, i.reason())
		}
	}
}

// closeConn says when it is being closed.
type closeConn struct {
	net.Conn
	closing chan<- bool
	drained func() bool
}

func (c *closeConn) Close() error {
	select {
	case c.closing <- c.drained():
	default: // it is closed more than once
	}
	return c.Conn.Close()
}

// TestClosedBeforeForgotten: as long as a connection is open Shutdown does not return.
func TestClosedBeforeForgotten(t *testing.T) {
	srv := new(Server)
	srv.init()
	client, server := net.Pipe()
	closing := make(chan bool, 1)
	conn := &closeConn{server, closing, srv.isDrained}
	served := make(chan error, 1)
	go func() { served <- srv.ServeConn(context.Background(), conn) }()
	client.Read(make([]byte, 100)) // the greeting
	down := make(chan error, 1)
	go func() { down <- srv.Shutdown(context.Background()) }()
	for {
		if _, err := client.Read(make([]byte, 100)); err != nil {
			break
		}
	}
	if <-closing {
		t.Error("the session was forgotten before its connection was closed")
	}
	<-served
	if err := <-down; err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}
