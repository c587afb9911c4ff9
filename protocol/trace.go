package protocol

import (
	"bytes"
	"sync/atomic"
	"time"
)

// Trace is told what a server does. Its functions are called in the goroutine that
// does it, and hold it up for as long as they take; nil ones cost nothing.
type Trace struct {
	// Command is told each command with its verb in upper case, its argument, the
	// last reply to it, and how long it took. The argument of AUTH has its secrets
	// replaced by "***".
	Command func(s *Session, verb, arg string, r Reply, d time.Duration)
	// Message is told of each transaction that came as far as its data: how many
	// octets there were, the results of the recipients (nil if the data never came
	// to its end), and the time from the first octet to the last reply.
	Message func(tx *Transaction, size int64, results []Reply, d time.Duration)
	// Wire is told each command line and each reply as it goes over the wire, with
	// its line ends, but not the message data; secrets are replaced by "***". It must
	// not use the session's methods, nor keep line.
	Wire func(s *Session, dir Direction, line []byte)
}

// Direction is where a line on the wire goes.
type Direction byte

const (
	FromClient Direction = '<'
	ToClient   Direction = '>'
)

// redact takes the secrets out of a command line.
func redact(line []byte) []byte {
	var buf [24]byte
	if string(verbName(line, &buf)) != "AUTH" {
		return line
	}
	words := bytes.Fields(line)
	if len(words) < 3 {
		return line
	}
	return bytes.Join([][]byte{words[0], words[1], []byte("***\r")}, []byte(" "))
}

// traceLine tells Wire what the client has said.
func (s *Session) traceLine(line []byte) {
	if t := s.srv.Trace; t != nil && t.Wire != nil {
		t.Wire(s, FromClient, append(bytes.Clone(line), '\n'))
	}
}

// traceCommand tells Command of a command line that was carried out.
func (s *Session) traceCommand(line []byte, start time.Time) {
	t := s.srv.Trace
	if t == nil || t.Command == nil {
		return
	}
	var buf [24]byte
	verb := string(verbName(line, &buf))
	arg := string(trimBlanks(bytes.TrimSuffix(line[min(len(verb), len(line)):], []byte("\r"))))
	t.Command(s, verb, arg, s.last, time.Since(start))
}

// Stats are counts of a server since it began.
type Stats struct {
	Sessions     int    // open now
	Connections  uint64 // all, also those refused at once
	Crowded      uint64 // refused or sent away because Limits.Sessions was reached
	Transactions uint64 // accepted MAIL commands
	Messages     uint64 // messages that came whole
	Octets       uint64 // of these
	Accepted     uint64 // replies to messages by class: 2yz
	Deferred     uint64 // 4yz
	Rejected     uint64 // 5yz
	Recipients   uint64 // accepted RCPT commands
	RefusedRcpts uint64
	Errors       uint64 // commands that were wrong in themselves
	Panics       uint64 // of hooks and handlers
}

// counters are the parts of Stats that are counted.
type counters struct {
	connections, crowded, transactions, messages, octets atomic.Uint64
	accepted, deferred, rejected                         atomic.Uint64
	recipients, refusedRcpts, errors, panics             atomic.Uint64
}

// Stats gives the counts of now. They are taken one after the other: a message may
// be in one and not yet in the next.
func (srv *Server) Stats() Stats {
	c := &srv.counters
	return Stats{
		Sessions:    srv.Sessions(),
		Connections: c.connections.Load(), Crowded: c.crowded.Load(), Transactions: c.transactions.Load(),
		Messages: c.messages.Load(), Octets: c.octets.Load(),
		Accepted: c.accepted.Load(), Deferred: c.deferred.Load(), Rejected: c.rejected.Load(),
		Recipients: c.recipients.Load(), RefusedRcpts: c.refusedRcpts.Load(),
		Errors: c.errors.Load(), Panics: c.panics.Load(),
	}
}

// reply counts the reply to a message.
func (c *counters) reply(r Reply) {
	switch {
	case r.OK():
		c.accepted.Add(1)
	case r.Temporary():
		c.deferred.Add(1)
	default:
		c.rejected.Add(1)
	}
}

// over counts and traces a transaction that came as far as its data.
func (s *Session) over(tx *Transaction, body *Body, single Reply) {
	c := &s.srv.counters
	if body.done {
		c.messages.Add(1)
		c.octets.Add(uint64(body.size))
		if s.Mode == SMTP {
			c.reply(single)
		} else {
			tx.count(c)
		}
	}
	if t := s.srv.Trace; t != nil && t.Message != nil {
		var results []Reply
		if body.done {
			results = tx.Results()
		}
		t.Message(tx, body.size, results, time.Since(body.start))
	}
}
