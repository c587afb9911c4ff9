package relay_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/relay"
	"github.com/lmtpd/lmtpd/protocol"
)

// fickle is a server that leaves at any step, the nth of them, once in a while, and keeps
// count of what it has taken: by recipient, what it has said 250 to after the data.
type fickle struct {
	relay.Host
	mu    sync.Mutex
	steps int
	taken map[string]int
}

func startFickle(t *testing.T, every int) *fickle {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fickle{Host: relay.Host{Network: "unix", Addr: l.Addr().String()}, taken: map[string]int{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				f.serve(conn, every)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return f
}

func (f *fickle) serve(conn net.Conn, every int) {
	in := bufio.NewReader(conn)
	var rcpts []string
	say := func(text string) bool {
		f.mu.Lock()
		f.steps++
		leave := f.steps%every == 0
		f.mu.Unlock()
		if !leave {
			io.WriteString(conn, text+"\r\n")
		}
		return !leave
	}
	ok := say("220 here")
	for ok {
		line, more := readLine(in)
		if !more {
			return
		}
		switch verb, _, _ := strings.Cut(line, " "); verb {
		case "LHLO":
			ok = say("250-here\r\n250 PIPELINING")
		case "RCPT":
			rcpts = append(rcpts, line)
			ok = say("250 ok")
		case "DATA":
			if ok = say("354 go"); !ok {
				return
			}
			for line, more := readLine(in); line != "."; line, more = readLine(in) {
				if !more {
					return
				}
			}
			for _, r := range rcpts {
				if ok = ok && say("250 taken"); ok {
					f.mu.Lock()
					f.taken[r]++
					f.mu.Unlock()
				}
			}
			rcpts = nil
		case "QUIT":
			io.WriteString(conn, "221 bye\r\n")
			return
		default:
			rcpts = nil
			ok = say("250 ok")
		}
	}
}

// Many deliveries at once to servers that leave at any time, over connections that end by
// themselves too: what is said to be taken has been, once, and all else is a failure.
func TestFickleServers(t *testing.T) {
	servers := []*fickle{startFickle(t, 7), startFickle(t, 11), startFickle(t, 1000)}
	r := &relay.Relay{Mode: protocol.LMTP, Connections: 4, Idle: time.Millisecond, Down: time.Millisecond, Hello: "x", Log: slog.New(slog.DiscardHandler)}
	for _, s := range servers {
		r.Hosts = append(r.Hosts, s.Host)
	}
	var mu sync.Mutex
	said := map[string]bool{} // by RCPT, whether it was taken
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for j := range 50 {
				p := parcel("", fmt.Sprintf("a%d-%d@x", i, j), fmt.Sprintf("b%d-%d@x", i, j), fmt.Sprintf("c%d-%d@x", i, j))
				r.Deliver(t.Context(), p, func(n int, h delivery.Handover) {
					mu.Lock()
					defer mu.Unlock()
					to := "RCPT TO:<" + p.Rcpts[n].Address + ">"
					if _, twice := said[to]; twice {
						t.Error("settled twice", to)
					}
					said[to] = h.Err == nil
				})
			}
		})
	}
	all.Wait()
	r.CloseIdle()
	took := 0
	for to, taken := range said {
		n := 0
		for _, s := range servers {
			s.mu.Lock()
			n += s.taken[to]
			s.mu.Unlock()
		}
		if n > 1 || taken != (n == 1) {
			t.Errorf("%s: said to be taken: %t; taken %d times", to, taken, n)
		}
		if taken {
			took++
		}
	}
	if len(said) != 16*50*3 || took < len(said)/2 {
		t.Errorf("%d settled, %d taken", len(said), took)
	}
}
