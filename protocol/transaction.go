package protocol

import (
	"errors"
	"sync"
)

// Transaction is one mail: the envelope that MAIL and RCPT made, and after the
// data the outcome of each recipient. It belongs to the session's goroutine;
// only Settle may be called from others.
type Transaction struct {
	Session *Session
	// ID names the transaction in logs and in default replies to the message (250 2.0.0 OK
	// queued as ID), if a hook sets it, or the handler before it settles a recipient.
	ID string
	// From is the reverse-path.
	From Path
	// Mail are the parameters of the MAIL command.
	Mail MailParams
	// RawParams are all parameters of MAIL as the client wrote them.
	RawParams string
	// Forward is what an MTA in front of the client said with XFORWARD.
	Forward Forward
	// Rcpts are the accepted recipients in the order of their RCPT commands,
	// duplicates included. Indexes into it are what Settle takes.
	Rcpts []Recipient
	// Value is the hooks' and the handler's own.
	Value any

	mu      sync.Mutex
	results []Reply                    // by index of Rcpts; Code 0 is not settled
	sent    int                        // results[:sent] have been handed to the writer
	pass    func(i int, r Reply) error // a part of another transaction: where outcomes go
	phase   settlePhase
	mark    uint64 // octets of input there were when the last reply went out: see Session.await
}

// Recipient is one accepted RCPT command.
type Recipient struct {
	// Path is the forward-path. A hook may rewrite it.
	Path Path
	// ORcpt is the address that the sender wrote, if the client passed it on
	// (RFC 3461 section 4.2), decoded, and without "rfc822;".
	ORcpt string
	// Notify is the NOTIFY parameter of RFC 3461, with ExtDSN only.
	Notify Notify
	// RRVS is the parameter of RFC 7293, with ExtRRVS only.
	RRVS ValidSince
	// Other are the parameters that Server.Params took.
	Other []Param
	// RawParams are all parameters as the client wrote them.
	RawParams string
	// Value is the hooks' and the handler's own, such as the mailbox found.
	Value any
}

// With names the protocol of the transaction as the WITH clause of a Received
// field has it (RFC 3848, RFC 6531 section 4.3): SMTP, ESMTP, LMTP, UTF8SMTP, UTF8LMTP,
// and these with S behind them for TLS and A for AUTH.
func (tx *Transaction) With() string {
	s := tx.Session
	name := "ESMTP"
	switch {
	case s.Mode == LMTP && tx.Mail.UTF8:
		name = "UTF8LMTP"
	case s.Mode == LMTP:
		name = "LMTP"
	case tx.Mail.UTF8:
		name = "UTF8SMTP"
	case !s.Extended:
		return "SMTP"
	}
	if s.TLS != nil {
		name += "S"
	}
	if s.Identity != nil {
		name += "A"
	}
	return name
}

type settlePhase uint8

const (
	settleRecord settlePhase = iota // data still arriving: results are only kept
	settleReply                     // data complete: results become replies
	settleDone                      // the transaction is over
)

// Errors of Settle.
var (
	ErrSettled   = errors.New("protocol: recipient is already settled")
	ErrNoRcpt    = errors.New("protocol: no recipient of that index")
	ErrTooLate   = errors.New("protocol: transaction is over")
	errNotALevel = errors.New("protocol: a settled recipient needs a 2yz, 4yz or 5yz reply")
)
