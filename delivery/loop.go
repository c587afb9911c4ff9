package delivery

import (
	"errors"
	"fmt"
	"strings"
)

var (
	errLoop = errors.New("message was delivered to this address before")
	errHops = errors.New("too many Received fields")
)

// loops finds out whether the message goes in circles: a Delivered-To field of
// this recipient is already in it (only ours and other final deliveries write
// them), or it has passed too many hops (RFC 5321 section 6.3).
func (a *Agent) loops(m *message, r *recipient) error {
	h := &m.spooled.header
	if a.MaxReceived > 0 && h.received > a.MaxReceived {
		return fmt.Errorf("%w: %d, and %d are allowed", errHops, h.received, a.MaxReceived)
	}
	if !a.LoopCheck {
		return nil
	}
	to := r.addr.String()
	for _, d := range h.deliveredTo {
		if strings.EqualFold(d, to) {
			return errLoop
		}
	}
	return nil
}

// relayLoops finds out whether a message that is to be relayed has passed the relay of
// this host too often. Who the recipient was does not stand in a Received field of a
// relay, since it may have gone to several.
func (a *Agent) relayLoops(m *message) error {
	h := &m.spooled.header
	switch {
	case a.MaxReceived > 0 && h.received > a.MaxReceived:
		return fmt.Errorf("%w: %d, and %d are allowed", errHops, h.received, a.MaxReceived)
	case h.relayed > maxRelayed:
		return errRelayLoop
	}
	return nil
}
