package protocol_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// TestNewcomers: after Shutdown has begun, who has not had a transaction yet gets one,
// and then goes; who has had one goes at once.
func TestNewcomers(t *testing.T) {
	srv := start(t, func(s *protocol.Server) { s.Timeouts.Newcomer = time.Hour })
	silent, greeted, refused, settled := srv.Dial(t), srv.Dial(t), srv.Dial(t), srv.Dial(t)
	silent.Expect("220")
	greeted.Hello("LHLO")
	refused.Hello("LHLO")
	refused.Cmd("501", "MAIL nonsense")
	settled.Hello("LHLO")
	envelope(settled, 1)
	settled.Expect("250 2.0.0")

	reused := srv.Dial(t)
	reused.Hello("LHLO")
	envelope(reused, 1)
	reused.Expect("250 2.0.0")
	reused.Cmd("250", "RSET")

	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	settled.Expect("421 4.3.2")
	settled.EOF()
	settled.Close()

	silent.Raw("LHLO late.example.org\r\n")
	silent.Expect("250")
	envelope(silent, 1)
	silent.Expect("250 2.0.0")
	silent.Expect("421 4.3.2")
	silent.EOF()
	silent.Close()
	envelope(reused, 1)
	reused.Expect("250 2.0.0")
	reused.Expect("421 4.3.2")
	reused.EOF()
	reused.Close()
	greeted.Cmd("250", "NOOP")
	envelope(greeted, 2)
	greeted.Expect("250 2.0.0")
	greeted.Expect("250 2.0.0")
	greeted.Expect("421 4.3.2")
	greeted.EOF()
	greeted.Close()
	refused.Cmd("250", "MAIL FROM:<a@example.org>")
	refused.Cmd("250", "RSET") // that was its transaction
	refused.Expect("421 4.3.2")
	refused.EOF()
	refused.Close()
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}

// TestNewcomersTime: the chance ends with its time.
func TestNewcomersTime(t *testing.T) {
	srv := start(t, func(s *protocol.Server) { s.Timeouts.Newcomer = 100 * time.Millisecond })
	silent, greeted := srv.Dial(t), srv.Dial(t)
	silent.Expect("220")
	greeted.Hello("LHLO")
	down := background(func() error { return srv.Config.Shutdown(context.Background()) })
	for _, c := range []*protocoltest.Client{silent, greeted} {
		c.Expect("421 4.3.2")
		c.EOF()
		c.Close()
	}
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
}

// lastListener accepts one connection in the moment of its Close.
type lastListener struct {
	*scriptListener
	waiting chan struct{} // closed by the first Accept
	last    net.Conn
}

func (l *lastListener) Accept() (net.Conn, error) {
	conn := l.last
	if conn == nil {
		return l.scriptListener.Accept()
	}
	l.last = nil
	close(l.waiting)
	<-l.closed
	return conn, nil
}

// TestNewcomerAtTheVeryEnd: what accept returns while Shutdown closes the listener is
// served too.
func TestNewcomerAtTheVeryEnd(t *testing.T) {
	srv := &protocol.Server{Mode: protocol.LMTP, Log: quiet, Timeouts: protocol.Timeouts{Newcomer: time.Hour}}
	ours, theirs := net.Pipe()
	l := &lastListener{newScriptListener(&net.UnixAddr{Net: "unix", Name: "/s"}), make(chan struct{}), theirs}
	served := background(func() error { return srv.Serve(l) })
	<-l.waiting
	down := background(func() error { return srv.Shutdown(context.Background()) })
	c := protocoltest.NewClient(t, ours)
	c.Hello("LHLO")
	envelope(c, 1)
	c.Expect("250 2.0.0")
	c.Expect("421 4.3.2")
	c.EOF()
	c.Close()
	if err := result(t, down); err != nil {
		t.Errorf("Shutdown returned %v", err)
	}
	if err := result(t, served); err != protocol.ErrServerClosed {
		t.Errorf("Serve returned %v", err)
	}
}
