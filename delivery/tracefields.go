package delivery

import (
	"fmt"
	"strings"
)

// TraceFields is a set of the header fields that a delivery puts before the message.
// Zero is DefaultTraceFields.
type TraceFields uint8

// The fields, in the order in which they are written.
const (
	TraceReturnPath   TraceFields = 1 << iota // the sender of the envelope
	TraceDeliveryDate                         // when the copy was made
	TraceEnvelopeTo                           // the recipient before aliases if it is known, else this one
	TraceOriginalTo                           // X-Original-To: the recipient before aliases, if it is known and differs
	TraceDeliveredTo                          // this recipient: what Agent.LoopCheck finds a loop by
	TraceReceived
)

// DefaultTraceFields are what RFC 5321 section 4.4 wants and what Postfix adds.
const DefaultTraceFields = TraceReturnPath | TraceOriginalTo | TraceDeliveredTo | TraceReceived

var traceFieldNames = [...]string{"Return-Path", "Delivery-Date", "Envelope-To", "X-Original-To", "Delivered-To", "Received"}

// ParseTraceFields reads names of fields, in any case and order.
func ParseTraceFields(names []string) (set TraceFields, err error) {
next:
	for _, name := range names {
		for i, known := range traceFieldNames {
			if strings.EqualFold(name, known) {
				set |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("header field %q is none of %s", name, strings.Join(traceFieldNames[:], ", "))
	}
	if set&TraceReceived == 0 {
		return 0, fmt.Errorf("no Received: RFC 5321 section 4.4 wants it, and nothing stops a loop without it")
	}
	return set, nil
}

// has reports whether the field is written.
func (s TraceFields) has(field TraceFields) bool {
	if s == 0 {
		s = DefaultTraceFields
	}
	return s&field != 0
}
