package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// tracer hands the dialog of sessions to those who watch it with `lmtpd trace`: the
// commands and replies as they go over the wire, without the messages. While nobody
// watches, it costs a look at a counter; a watcher who does not read loses lines and
// holds nobody up.
type tracer struct {
	clock    func() time.Time
	watching atomic.Int32
	mu       sync.Mutex
	watchers map[*traceWatcher]struct{}
}

const (
	maxWatchers    = 16
	traceQueue     = 1024    // lines on their way to one watcher
	traceEarlier   = 8 << 10 // octets of a session kept until it turns out to be watched
	tracedSessions = 1000    // sessions for which a watcher keeps them
)

// traceWatcher is one watcher and what it wants to see.
type traceWatcher struct {
	client    string // address, "unix", or the name in LHLO; "": any
	recipient string // part of an address, in lower case; "": any

	lines    chan []byte
	lost     atomic.Uint64
	sessions map[*protocol.Session]*tracedSession // guarded by tracer.mu
}

// tracedSession is a session as one watcher sees it.
type tracedSession struct {
	client, recipient bool // whether it is one of those asked for
	earlier           [][]byte
	size              int
}

func (t *tracer) add(w *traceWatcher) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.watchers) >= maxWatchers {
		return false
	}
	if t.watchers == nil {
		t.watchers = map[*traceWatcher]struct{}{}
	}
	w.lines = make(chan []byte, traceQueue)
	w.sessions = map[*protocol.Session]*tracedSession{}
	t.watchers[w] = struct{}{}
	t.watching.Store(int32(len(t.watchers)))
	return true
}

func (t *tracer) remove(w *traceWatcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watchers, w)
	t.watching.Store(int32(len(t.watchers)))
}

// close sends all watchers away, once they have what was on its way to them.
func (t *tracer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.watchers {
		close(w.lines)
	}
	t.watchers = nil
	t.watching.Store(0)
}

// wire is for protocol.Trace.
func (t *tracer) wire(s *protocol.Session, dir protocol.Direction, line []byte) {
	if t.watching.Load() == 0 {
		return
	}
	text := fmt.Appendf(nil, "%s %d %c ", t.clock().Format("15:04:05.000000"), s.ID, dir)
	text = append(appendPrintable(text, strings.TrimRight(string(line), "\r\n")), '\n')
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.watchers {
		w.see(s, dir, line, text)
	}
}

// ended forgets a session.
func (t *tracer) ended(s *protocol.Session) {
	if t.watching.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.watchers {
		delete(w.sessions, s)
	}
}

// see decides about a line. What a session said before it was known to be watched
// comes first.
func (w *traceWatcher) see(s *protocol.Session, dir protocol.Direction, line, text []byte) {
	ts := w.sessions[s]
	if ts == nil {
		if len(w.sessions) >= tracedSessions {
			return
		}
		ts = &tracedSession{client: w.client == "" || fromClient(s, w.client), recipient: w.recipient == ""}
		w.sessions[s] = ts
	}
	if !ts.client || !ts.recipient {
		if dir == protocol.FromClient {
			ts.client = ts.client || greets(line, w.client)
			ts.recipient = ts.recipient || names(line, w.recipient)
		}
		if !ts.client || !ts.recipient {
			ts.keep(text)
			return
		}
		for _, earlier := range ts.earlier {
			w.send(earlier)
		}
		ts.earlier = nil
	}
	w.send(text)
}

func (ts *tracedSession) keep(text []byte) {
	ts.earlier = append(ts.earlier, text)
	for ts.size += len(text); ts.size > traceEarlier; ts.earlier = ts.earlier[1:] {
		ts.size -= len(ts.earlier[0])
	}
}

func (w *traceWatcher) send(text []byte) {
	select {
	case w.lines <- text:
	default:
		w.lost.Add(1)
	}
}

// fromClient reports whether a session comes from there.
func fromClient(s *protocol.Session, client string) bool {
	switch a := s.RemoteAddr.(type) {
	case *net.TCPAddr:
		ip := net.ParseIP(client)
		return ip != nil && ip.Equal(a.IP)
	case *net.UnixAddr:
		return client == "unix"
	}
	return false
}

// greets reports whether a command is the greeting of that client.
func greets(line []byte, client string) bool {
	verb, name, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	switch strings.ToUpper(string(verb)) {
	case "LHLO", "EHLO", "HELO":
		return strings.EqualFold(string(bytes.TrimSpace(name)), client)
	}
	return false
}

// names reports whether a command is a RCPT with that recipient.
func names(line []byte, recipient string) bool {
	lower := bytes.ToLower(line)
	return bytes.HasPrefix(lower, []byte("rcpt")) && bytes.Contains(lower, []byte(recipient))
}

// ServeHTTP streams lines until the watcher goes away.
func (t *tracer) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &traceWatcher{client: r.FormValue("client"), recipient: strings.ToLower(r.FormValue("recipient"))}
	if !t.add(w) {
		http.Error(rw, "too many are watching", http.StatusServiceUnavailable)
		return
	}
	defer t.remove(w)
	out := http.NewResponseController(rw)
	_ = out.SetReadDeadline(time.Time{}) // the server's, for the request, would end this
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.WriteHeader(http.StatusOK)
	if out.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case line, more := <-w.lines:
			if !more {
				return
			}
			if n := w.lost.Swap(0); n > 0 {
				fmt.Fprintf(rw, "... %d lines lost\n", n)
			}
			if _, err := rw.Write(line); err != nil {
				return
			}
			if len(w.lines) == 0 && out.Flush() != nil {
				return
			}
		}
	}
}
