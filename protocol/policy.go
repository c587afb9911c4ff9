package protocol

import "context"

// Policy is a set of optional decisions, one for each step of a session. A zero
// Reply or any 2yz accepts; the text of a 2yz is sent. Any other reply refuses
// and leaves the state as it was, so that the client may try again. The functions
// run in the session's goroutine; sessions run side by side, so what they share
// needs its own locks. ctx ends when the server is closed by force.
type Policy struct {
	// Proxy is asked when a trusted proxy has sent its header, which is in s.Proxy; a
	// refusal closes the connection without a reply.
	Proxy func(ctx context.Context, s *Session) Reply
	// Connect is asked before the greeting. The text of a 2yz replaces the
	// greeting's; a refusal closes the connection.
	Connect func(ctx context.Context, s *Session) Reply
	// Hello is asked at HELO, EHLO and LHLO with the name that the client gave.
	Hello func(ctx context.Context, s *Session, name string) Reply
	// Extensions edits the lines of the EHLO or LHLO reply below the first.
	Extensions func(ctx context.Context, s *Session, lines []string) []string
	// StartTLS is asked after the handshake of STARTTLS and of TLS from the start;
	// s.TLS tells what came of it. The client has its reply already: after a refusal
	// every command but QUIT is answered 554 5.7.0.
	StartTLS func(ctx context.Context, s *Session) Reply
	// Mail is asked when the transaction has its From and Mail.
	Mail func(ctx context.Context, tx *Transaction) Reply
	// Rcpt may rewrite the recipient and set its Value. The pointer is valid
	// during the call only; the recipient is not in tx.Rcpts yet.
	Rcpt func(ctx context.Context, tx *Transaction, rcpt *Recipient) Reply
	// Data is asked before 354.
	Data func(ctx context.Context, tx *Transaction) Reply
	// Verify answers VRFY and Expand answers EXPN.
	Verify func(ctx context.Context, s *Session, arg string) Reply
	Expand func(ctx context.Context, s *Session, arg string) Reply
	// Noop, Reset and Quit see these commands and may change the reply.
	Noop  func(ctx context.Context, s *Session, arg string) Reply
	Reset func(ctx context.Context, s *Session) Reply
	Quit  func(ctx context.Context, s *Session) Reply
	// Replied is told once for each transaction that the handler was called for
	// whether the client has seen its replies: true as soon as it sends something
	// that it had not sent before the last of them was written, false where the
	// session ends without that or the message never came to its end. Replies that
	// may not have been seen are those of a message that may come again (RFC 1047).
	Replied func(ctx context.Context, tx *Transaction, seen bool)
	// Failure is told of an error that the handler returned and of a panic in
	// any hook (a *PanicError), and gives the reply; a zero Reply is 451 4.3.0.
	Failure func(ctx context.Context, s *Session, err error) Reply
	// Close is told when a session has ended, with nil after QUIT.
	Close func(ctx context.Context, s *Session, err error)
}

// Chain asks several policies in order: the first reply that refuses or closes is the answer,
// otherwise the last reply that is not zero.
func Chain(policies ...Policy) Policy {
	all := append([]Policy(nil), policies...)
	return Policy{
		Proxy: func(ctx context.Context, s *Session) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Proxy, ctx, s) })
		},
		Connect: func(ctx context.Context, s *Session) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Connect, ctx, s) })
		},
		Hello: func(ctx context.Context, s *Session, name string) Reply {
			return ask(all, func(p *Policy) Reply { return call1(p.Hello, ctx, s, name) })
		},
		Extensions: func(ctx context.Context, s *Session, lines []string) []string {
			for i := range all {
				if f := all[i].Extensions; f != nil {
					lines = f(ctx, s, lines)
				}
			}
			return lines
		},
		StartTLS: func(ctx context.Context, s *Session) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.StartTLS, ctx, s) })
		},
		Mail: func(ctx context.Context, tx *Transaction) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Mail, ctx, tx) })
		},
		Rcpt: func(ctx context.Context, tx *Transaction, rcpt *Recipient) Reply {
			return ask(all, func(p *Policy) Reply { return call1(p.Rcpt, ctx, tx, rcpt) })
		},
		Data: func(ctx context.Context, tx *Transaction) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Data, ctx, tx) })
		},
		Verify: chainArg(all, func(p *Policy) func(context.Context, *Session, string) Reply { return p.Verify }),
		Expand: chainArg(all, func(p *Policy) func(context.Context, *Session, string) Reply { return p.Expand }),
		Noop:   chainArg(all, func(p *Policy) func(context.Context, *Session, string) Reply { return p.Noop }),
		Reset: func(ctx context.Context, s *Session) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Reset, ctx, s) })
		},
		Quit: func(ctx context.Context, s *Session) Reply {
			return ask(all, func(p *Policy) Reply { return call(p.Quit, ctx, s) })
		},
		Replied: func(ctx context.Context, tx *Transaction, seen bool) {
			for i := range all {
				if f := all[i].Replied; f != nil {
					f(ctx, tx, seen)
				}
			}
		},
		Failure: func(ctx context.Context, s *Session, err error) Reply {
			return ask(all, func(p *Policy) Reply { return call1(p.Failure, ctx, s, err) })
		},
		Close: func(ctx context.Context, s *Session, err error) {
			for i := range all {
				if f := all[i].Close; f != nil {
					f(ctx, s, err)
				}
			}
		},
	}
}

func chainArg(all []Policy, pick func(*Policy) func(context.Context, *Session, string) Reply) func(context.Context, *Session, string) Reply {
	return func(ctx context.Context, s *Session, arg string) Reply {
		return ask(all, func(p *Policy) Reply { return call1(pick(p), ctx, s, arg) })
	}
}

func ask(all []Policy, one func(*Policy) Reply) (last Reply) {
	for i := range all {
		r := one(&all[i])
		if !r.OK() || r.Then != Continue {
			return r
		}
		if r.Code != 0 {
			last = r
		}
	}
	return last
}

func call[A any](f func(context.Context, A) Reply, ctx context.Context, a A) Reply {
	if f == nil {
		return Reply{}
	}
	return f(ctx, a)
}

func call1[A, B any](f func(context.Context, A, B) Reply, ctx context.Context, a A, b B) Reply {
	if f == nil {
		return Reply{}
	}
	return f(ctx, a, b)
}
