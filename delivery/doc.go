// Package delivery is what happens to one message between the protocol and the
// disk. Its Agent is a protocol.Handler and the Rcpt hook that goes with it:
//
//	RCPT   Agent.Rcpt      address -> user -> mailbox, or the refusal   lookup.go, mailbox.go
//	                       room for the size that is declared           quota.go
//	DATA   Agent.Deliver   the body is read once                        spool.go, header.go
//	                       loop check, trace header of each recipient   loop.go, trace.go
//	                       folder, by header field or detail            folder.go
//	                       delivered before, and the reply was lost?    redelivery.go
//	                       one copy for each distinct recipient         copies.go
//	                       and side by side with the Maildirs, those
//	                       that go elsewhere, by the user record        transport.go, handover.go
//	                       each outcome becomes a reply and a log line  reply.go, outcome.go
//	then   Agent.Replied   did the client see the replies?              redelivery.go
//
// Whatever goes wrong on the way ends in the one table of reply.go; nothing else
// chooses reply codes. What the client reads there is generic; the cause goes to
// the log.
package delivery
