package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// load is what to do; see the flags in main.
type load struct {
	socket                              string
	to                                  []string
	messages, workers, perSession, size int
	timeout                             time.Duration
	rate                                float64 // messages per second; 0: no limit
	began                               int64   // tells the messages of this run from those of others
}

// tally is how it went.
type tally struct {
	delivered   int
	connections int // that were made
	refused     int // connect(2) failed
	turnedAway  int // closed, or answered with an error, before the first transaction
	asked       int // closed between two transactions: 421
	lost        int // transactions that MAIL began and no 250 ended

	slowGreeting, slowMessage time.Duration
	faults                    []string // the first few, in words
}

func (t *tally) fault(format string, args ...any) {
	if len(t.faults) < 10 {
		t.faults = append(t.faults, fmt.Sprintf(format, args...))
	}
}

// Bounds of what a worker tries before it gives up: one message, and failures at all.
const (
	maxTries    = 100
	maxFailures = 1000
)

// run delivers the messages, each until it got its 250.
func (l *load) run() tally {
	next := make(chan int)
	go func() {
		defer close(next)
		var pace <-chan time.Time
		if l.rate > 0 {
			ticker := time.NewTicker(time.Duration(float64(time.Second) / l.rate))
			defer ticker.Stop()
			pace = ticker.C
		}
		for i := range l.messages {
			if pace != nil {
				<-pace
			}
			next <- i
		}
	}()
	var mu sync.Mutex
	var sum tally
	var all sync.WaitGroup
	for range l.workers {
		all.Go(func() {
			w := worker{load: l}
			for i := range next {
				for range maxTries {
					if w.failures > maxFailures || w.deliver(i) {
						break
					}
					w.failures++
				}
			}
			w.quit()
			mu.Lock()
			defer mu.Unlock()
			sum.add(w.tally)
		})
	}
	all.Wait()
	return sum
}

func (t *tally) add(o tally) {
	t.delivered += o.delivered
	t.connections += o.connections
	t.refused += o.refused
	t.turnedAway += o.turnedAway
	t.asked += o.asked
	t.lost += o.lost
	t.slowGreeting = max(t.slowGreeting, o.slowGreeting)
	t.slowMessage = max(t.slowMessage, o.slowMessage)
	for _, f := range o.faults {
		t.fault("%s", f)
	}
}

// worker has at most one connection.
type worker struct {
	*load
	tally
	conn net.Conn
	in   *bufio.Reader
	done int // messages of this connection

	failures int
}

// deliver tries message i once.
func (w *worker) deliver(i int) bool {
	if w.conn == nil && !w.connect() {
		return false
	}
	began := time.Now()
	to := w.to[i%len(w.to)]
	if err := w.command("MAIL FROM:<load@example.org>\r\n", "250"); err != nil {
		w.before(err)
		return false
	}
	body := fmt.Sprintf("X-Load: %d\r\nMessage-ID: <%d.%d@load.example.org>\r\nSubject: load\r\n\r\n", i, w.began, i)
	line := strings.Repeat("x", 70) + "\r\n"
	body += strings.Repeat(line, max(0, w.size-len(body))/len(line))
	for _, step := range []struct{ text, want string }{
		{"RCPT TO:<" + to + ">\r\n", "250"}, {"DATA\r\n", "354"}, {body + ".\r\n", "250"},
	} {
		if err := w.command(step.text, step.want); err != nil {
			w.lost++
			w.fault("message %d: after %.20q: %v", i, step.text, err)
			w.drop()
			return false
		}
	}
	w.delivered++
	w.done++
	w.slowMessage = max(w.slowMessage, time.Since(began))
	if w.done >= w.perSession {
		w.quit()
	}
	return true
}

func (w *worker) connect() bool {
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		w.refused++
		w.fault("connect: %v", err)
		time.Sleep(10 * time.Millisecond) // as an MTA would, but sooner
		return false
	}
	w.connections++
	w.conn, w.in, w.done = conn, bufio.NewReader(conn), 0
	began := time.Now()
	err = w.expect("220")
	w.slowGreeting = max(w.slowGreeting, time.Since(began))
	if err == nil {
		err = w.command("LHLO load.example.org\r\n", "250")
	}
	if err != nil {
		w.before(err)
		return false
	}
	return true
}

// before is the end of a connection outside a transaction.
func (w *worker) before(err error) {
	if w.done > 0 {
		w.asked++
	} else {
		w.turnedAway++
		w.fault("turned away: %v", err)
	}
	w.drop()
}

func (w *worker) command(text, want string) error {
	if _, err := w.conn.Write([]byte(text)); err != nil {
		// What the server said before it closed explains more.
		if said := w.expect(want); said != nil && !errors.Is(said, net.ErrClosed) {
			return said
		}
		return err
	}
	return w.expect(want)
}

// expect reads one reply.
func (w *worker) expect(want string) error {
	if err := w.conn.SetReadDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	for {
		line, err := w.in.ReadString('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 || !strings.HasPrefix(line, want) {
			return fmt.Errorf("server says %q", strings.TrimSpace(line))
		}
		if line[3] == ' ' {
			return nil
		}
	}
}

func (w *worker) quit() {
	if w.conn != nil {
		_ = w.command("QUIT\r\n", "221") // the message is there either way
		w.drop()
	}
}

func (w *worker) drop() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}
