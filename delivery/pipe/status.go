package pipe

import (
	"fmt"

	"github.com/lmtpd/lmtpd/protocol"
)

// status is what an exit status means for the message.
type status struct {
	name string
	own  bool // the program says it of the message: its words are for the sender
	says protocol.Reply
}

// statuses are those of sysexits.h. What a program says about the message or the
// recipient is final; what it says about itself or its machine can be mended, and so can
// what no table knows.
var statuses = map[int]status{
	64: {"EX_USAGE, wrong command line", false, temp(3, 5, "Delivery is misconfigured")},
	65: {"EX_DATAERR, bad message", true, perm(6, 0, "Message was refused")},
	66: {"EX_NOINPUT, cannot open input", false, temp(3, 0, "Temporary failure of delivery")},
	67: {"EX_NOUSER, no such user", true, unknown(1, 1, "User unknown")},
	68: {"EX_NOHOST, no such host", true, unknown(1, 2, "Host unknown")},
	69: {"EX_UNAVAILABLE, refused", true, perm(3, 0, "Message was refused")},
	70: {"EX_SOFTWARE, internal error", false, temp(3, 0, "Temporary failure of delivery")},
	71: {"EX_OSERR, system error", false, temp(3, 0, "Temporary failure of delivery")},
	72: {"EX_OSFILE, system file missing", false, temp(3, 0, "Temporary failure of delivery")},
	73: {"EX_CANTCREAT, cannot create output", false, temp(2, 0, "Temporary failure of delivery")},
	74: {"EX_IOERR, input/output error", false, temp(3, 0, "Temporary failure of delivery")},
	75: {"EX_TEMPFAIL, try again", true, temp(3, 0, "Temporary failure of delivery")},
	76: {"EX_PROTOCOL, remote error", false, temp(5, 0, "Temporary failure of delivery")},
	77: {"EX_NOPERM, not allowed", true, perm(7, 1, "Message is not allowed")},
	78: {"EX_CONFIG, configuration error", false, temp(3, 5, "Delivery is misconfigured")},
}

func temp(subject, detail uint16, text string) protocol.Reply {
	return protocol.Reply{Code: 451, Enhanced: protocol.Enhanced{4, subject, detail}, Text: text}
}

func perm(subject, detail uint16, text string) protocol.Reply {
	return protocol.Reply{Code: 554, Enhanced: protocol.Enhanced{5, subject, detail}, Text: text}
}

func unknown(subject, detail uint16, text string) protocol.Reply {
	return protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, subject, detail}, Text: text}
}

func statusOf(code int) status {
	if s, ok := statuses[code]; ok {
		return s
	}
	return status{says: temp(3, 0, "Temporary failure of delivery")}
}

// describe is for the log.
func (s *status) describe(code int) string {
	switch {
	case code < 0:
		return "ended by a signal"
	case s.name != "":
		return fmt.Sprintf("exit status %d (%s)", code, s.name)
	}
	return fmt.Sprintf("exit status %d", code)
}

// reply is what the client is told. The program's words are part of it where they are
// about the message.
func (s *status) reply(output string) protocol.Reply {
	r := s.says
	if !s.own {
		return r
	}
	e, text := statusText(output, r.Enhanced[0])
	if e != (protocol.Enhanced{}) {
		r.Enhanced = e
	}
	if text != "" {
		r.Text += ": " + text
	}
	return r
}
