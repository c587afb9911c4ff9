package protocol

import "time"

// Limits bound what a client can make a server do. A zero field means the
// default given; a negative one means no limit, where that makes sense.
type Limits struct {
	// MessageSize is the largest message in octets, as counted after dot
	// unstuffing; default 33554432. It is announced with SIZE (RFC 1870).
	MessageSize int64
	// Recipients of one transaction; default 1000. RFC 5321 section 4.5.3.1.8
	// wants at least 100. Those beyond get 452 4.5.3.
	Recipients int
	// CommandLine is the longest command line in octets with its CR LF; default
	// 2048. The rest of a longer one is read and dropped. What extensions add to the
	// 512 octets of RFC 5321 is added to a lower limit too.
	CommandLine int
	// CommandLines are the limits of single verbs, in upper case, in place of
	// CommandLine; at most 65536.
	CommandLines map[string]int
	// Calls are how often a verb may be used in one session, by name in upper case,
	// "*" for those not named; beyond it the session is closed with 421 4.7.0.
	// Default: no limit.
	Calls map[string]int
	// MinRate is how many octets of a message must arrive each second on average,
	// once Timeouts.Data has passed; default no limit. It does not concern Unix
	// sockets, whose clients cannot be slow by malice from afar.
	MinRate int
	// ContentLine is the longest line of a message in octets with its CR LF;
	// default no limit.
	ContentLine int
	// LocalPart is the longest local part of an address in octets; default no limit.
	// RFC 5321 section 4.5.3.1.1 says 64, but real addresses are longer.
	LocalPart int
	// Errors is how many commands may be wrong (syntax, sequence, unknown)
	// before the session is closed with 421 4.7.0; default 10. Refusals by a
	// hook do not count.
	Errors int
	// UnknownCommands does the same for unknown verbs; default 5.
	UnknownCommands int
	// Sessions open at once; default no limit. A connection beyond it takes the
	// place of the session that has idled longest outside a transaction, or is
	// refused with 421 4.3.2 where there is none.
	Sessions int
}

// Timeouts bound how long a session waits. A zero field means the default, a
// negative one no bound.
type Timeouts struct {
	// Command is the time for a whole command line to arrive, the wait for it
	// included; default 5 minutes (RFC 5321 section 4.5.3.2.7).
	Command time.Duration
	// Data is the time between two arrivals of message data; default 3 minutes
	// (RFC 5321 section 4.5.3.2.5).
	Data time.Duration
	// Transaction is the time for all data of one message; default 1 hour.
	Transaction time.Duration
	// Proxy is the time for the PROXY header of a trusted proxy; default 5 seconds.
	Proxy time.Duration
	// Handshake is the time for a TLS handshake; default 1 minute.
	Handshake time.Duration
	// Newcomer is how long Shutdown leaves a session the chance to begin a transaction
	// that has not begun any yet, or has just sent RSET in order to. Default none: it
	// is told to go like any other between two transactions.
	Newcomer time.Duration
	// Drain is how long after the beginning of Shutdown the contexts of hooks and handlers
	// end, so that they can still reply before the connections are closed by force.
	// Default none: they go on for as long as Shutdown waits.
	Drain time.Duration
	// Write is the time for the client to take replies; default 5 minutes.
	Write time.Duration
	// Deliver bounds the context of Handler.Deliver from the end of the data on;
	// default 580 seconds, less than the 600 that a client waits for the reply
	// (RFC 5321 section 4.5.3.2.6).
	Deliver time.Duration
}

const defaultMessageSize = 33554432

func (l Limits) withDefaults() Limits {
	def64(&l.MessageSize, defaultMessageSize)
	def(&l.Recipients, 1000)
	def(&l.CommandLine, 2048)
	def(&l.ContentLine, -1)
	def(&l.MinRate, -1)
	def(&l.Errors, 10)
	def(&l.UnknownCommands, 5)
	def(&l.Sessions, -1)
	if l.CommandLine < 512 {
		l.CommandLine = 512 // RFC 5321 section 4.5.3.1.4; reading needs a bound
	}
	return l
}

func (t Timeouts) withDefaults() Timeouts {
	for _, f := range []struct {
		d   *time.Duration
		def time.Duration
	}{
		{&t.Command, 5 * time.Minute}, {&t.Data, 3 * time.Minute}, {&t.Transaction, time.Hour}, {&t.Handshake, time.Minute}, {&t.Proxy, 5 * time.Second},
		{&t.Write, 5 * time.Minute}, {&t.Deliver, 580 * time.Second},
	} {
		if *f.d == 0 {
			*f.d = f.def
		}
	}
	return t
}

func def(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func def64(p *int64, v int64) {
	if *p == 0 {
		*p = v
	}
}
