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
