package protocol_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// states collects what ConnState is told.
type states struct {
	mu  sync.Mutex
	all []protocol.State
}

func (st *states) hook(_ *protocol.Session, state protocol.State) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.all = append(st.all, state)
}

func TestConnState(t *testing.T) {
	const n, i, a, c = protocol.StateNew, protocol.StateIdle, protocol.StateActive, protocol.StateClosed
	for _, test := range []struct {
		name  string
		lines []string
		want  []protocol.State
	}{
		{"QUIT", []string{"LHLO x", "NOOP", "QUIT"}, []protocol.State{n, i, c}},
		{"RSET", []string{"LHLO x", "RSET", "MAIL FROM:<>", "RCPT TO:<b>", "RSET", "RSET"}, []protocol.State{n, i, a, i, c}},
		{"refused MAIL", []string{"LHLO x", "MAIL nonsense"}, []protocol.State{n, i, c}},
		{"LHLO within", []string{"LHLO x", "MAIL FROM:<>", "LHLO x"}, []protocol.State{n, i, a, i, c}},
		{"cut within", []string{"LHLO x", "MAIL FROM:<>"}, []protocol.State{n, i, a, c}},
		{"message", []string{"LHLO x", "MAIL FROM:<>", "RCPT TO:<b>", "DATA", "x\r\n.", "MAIL FROM:<>", "QUIT"}, []protocol.State{n, i, a, i, a, c}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seen states
			srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, ConnState: seen.hook}
			client, server := net.Pipe()
			served := background(func() error { return srv.ServeConn(context.Background(), server) })
			cl := protocoltest.NewClient(t, client)
			cl.Expect("220")
			for _, l := range test.lines {
				cl.Raw(l + "\r\n")
				cl.Reply()
			}
			cl.Close()
			result(t, served)
			if !slices.Equal(seen.all, test.want) {
				t.Errorf("states %v, want %v", seen.all, test.want)
			}
		})
	}
}

// TestConnStateRefused: a session that is not greeted is new and then closed, and a
// panic of the hook at its end harms nobody.
func TestConnStateRefused(t *testing.T) {
	var seen states
	srv := &protocol.Server{Log: quiet, ConnState: func(s *protocol.Session, st protocol.State) {
		seen.hook(s, st)
		if st == protocol.StateClosed {
			panic("as the test asks for")
		}
	}}
	srv.Policy.Connect = func(context.Context, *protocol.Session) protocol.Reply { return protocol.Reply{Code: 554} }
	srv.ServeConn(context.Background(), &scriptConn{})
	if want := []protocol.State{protocol.StateNew, protocol.StateClosed}; !slices.Equal(seen.all, want) {
		t.Errorf("states %v, want %v", seen.all, want)
	}
}

func TestStateString(t *testing.T) {
	for st, want := range map[protocol.State]string{
		protocol.StateNew: "new", protocol.StateIdle: "idle", protocol.StateActive: "active", protocol.StateClosed: "closed",
	} {
		if st.String() != want {
			t.Errorf("%v, want %s", st, want)
		}
	}
}
