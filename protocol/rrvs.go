package protocol

import (
	"strings"
	"time"
)

// ValidSince is the RRVS parameter of RFC 7293: the message is not meant for whoever
// has got the mailbox since. A hook that finds that it has changed hands refuses the
// recipient with 550 5.7.17, or 5.7.18 where the domain has (RFC 7372).
type ValidSince struct {
	// Time is when the sender knew the mailbox's owner; zero if there was no RRVS.
	Time time.Time
	// Action is what a relay is to do whose next server has no RRVS: 'C' is to go on,
	// 'R' to refuse, and 0 where the client did not say.
	Action byte
}

var replyRRVS = Reply{Code: 501, Enhanced: Enhanced{5, 5, 4}, Text: "Error: RRVS is a date and time, and ;C or ;R"}

// parseRRVS reads date-time [";" ("C" / "R")], the date and time as in RFC 3339.
func parseRRVS(s string) (v ValidSince, ok bool) {
	date, action, more := strings.Cut(strings.ToUpper(s), ";")
	if more {
		if action != "C" && action != "R" {
			return ValidSince{}, false
		}
		v.Action = action[0]
	}
	var err error
	v.Time, err = time.Parse(time.RFC3339, date)
	return v, err == nil && !v.Time.IsZero()
}
