package protocol

import (
	"context"
	"strings"
)

// mail begins a transaction: RFC 5321 section 4.1.1.2.
func (s *Session) mail(ctx context.Context, arg []byte) Reply {
	if s.Hello == "" {
		return s.helloFirst()
	}
	if s.tx != nil {
		return s.fault(replyNestedMail)
	}
	if !s.idle.mayBegin(s.srv) {
		return replyShutdown
	}
	r := s.begin(ctx, s.keep(arg))
	s.refused = !r.OK()
	return r
}

func (s *Session) begin(ctx context.Context, arg string) Reply {
	inner, params, ok := cutKeyword(arg, "FROM:")
	if !ok {
		return s.mailSyntax()
	}
	tx := &Transaction{Session: s, Forward: s.forward, RawParams: strings.TrimSpace(params)}
	if strings.TrimLeft(params, " \t") != "" {
		if !s.Extended {
			return s.mailSyntax()
		}
		// Refusals are counted here, where a parameter was wrong, but not the
		// hook's.
		if r := s.parseMailParams(tx, params); !r.OK() {
			return s.fault(r)
		}
	}
	if inner != "" {
		from, err := ParsePath(inner, tx.Mail.UTF8)
		if err == nil {
			err = s.checkLocal(from)
		}
		if err == errPathUTF8 {
			return s.fault(replyNeedUTF8)
		}
		if err != nil {
			if s.Mode == SMTP || err == errPathNotUTF8 {
				return s.fault(replyBadSender)
			}
			// The MTA behind an LMTP client has taken the message already:
			// refusing its sender would bounce it to that very sender.
			from = Path{Local: inner, Raw: inner}
		}
		tx.From = from
	}
	if n := s.MessageSize; n > 0 && tx.Mail.Size > n {
		return replyTooBig
	}
	r := call(s.srv.Policy.Mail, ctx, tx)
	if r.OK() {
		s.tx, s.refusedRcpts = tx, 0
		s.idle.begun()
		s.enter(StateActive)
	}
	return r.or(replyMailOK)
}

// rcpt adds a recipient: RFC 5321 section 4.1.1.3.
func (s *Session) rcpt(ctx context.Context, arg []byte) Reply {
	if s.Hello == "" {
		return s.helloFirst()
	}
	tx := s.tx
	if tx == nil {
		return s.sequence(replyNeedMail)
	}
	if len(tx.Rcpts) >= s.srv.limits.Recipients && s.srv.limits.Recipients > 0 {
		return replyManyRcpts
	}
	inner, params, ok := cutKeyword(s.keep(arg), "TO:")
	if !ok {
		return s.rcptSyntax()
	}
	n := len(tx.Rcpts)
	tx.Rcpts = append(tx.Rcpts, Recipient{})
	rcpt := &tx.Rcpts[n]
	r := s.fillRcpt(ctx, tx, rcpt, inner, params)
	if !r.OK() {
		tx.Rcpts[n] = Recipient{}
		tx.Rcpts = tx.Rcpts[:n]
		s.refusedRcpts++
	}
	return r.or(replyRcptOK)
}

func (s *Session) checkLocal(p Path) error {
	if n := s.srv.limits.LocalPart; n > 0 && len(p.Local) > n {
		return errPathTooLong
	}
	return nil
}

func (s *Session) fillRcpt(ctx context.Context, tx *Transaction, rcpt *Recipient, inner, params string) Reply {
	rcpt.RawParams = strings.TrimSpace(params)
	if strings.TrimLeft(params, " \t") != "" {
		if !s.Extended {
			return s.rcptSyntax()
		}
		if r := s.parseRcptParams(tx, rcpt, params); !r.OK() {
			return s.fault(r)
		}
	}
	path, err := ParsePath(inner, tx.Mail.UTF8)
	if err == nil {
		err = s.checkLocal(path)
	}
	if err == errPathUTF8 {
		return replyNeedUTF8
	}
	if err != nil {
		// Not counted as an error of the client: an MTA passes on what its
		// users wrote.
		if err == errPathTooLong {
			return replyLongRcpt
		}
		return replyBadRcpt
	}
	rcpt.Path = path
	// The hook must not find itself in the list that it is deciding on.
	tx.Rcpts = tx.Rcpts[:len(tx.Rcpts)-1]
	r := call1(s.srv.Policy.Rcpt, ctx, tx, rcpt)
	tx.Rcpts = tx.Rcpts[:len(tx.Rcpts)+1]
	return r
}

// argBlock is how much memory the strings of arguments are cut from.
const argBlock = 1 << 10

// keep makes a string of a command's argument. The strings share blocks, so that a
// refused RCPT costs no allocation of its own.
func (s *Session) keep(arg []byte) string {
	if s.args.Cap()-s.args.Len() < len(arg) {
		s.args.Reset()
		s.args.Grow(max(argBlock, len(arg)))
	}
	n := s.args.Len()
	s.args.Write(arg)
	return s.args.String()[n:]
}

// cutKeyword takes "FROM:" or "TO:", in any case and with blanks behind it, off a
// MAIL or RCPT argument and gives the path and what follows.
func cutKeyword(arg, keyword string) (inner, params string, ok bool) {
	n := len(keyword)
	if len(arg) < n || !strings.EqualFold(arg[:n], keyword) {
		return "", "", false
	}
	return cutPath(strings.TrimLeft(arg[n:], " \t"))
}

func (s *Session) mailSyntax() Reply {
	if s.Extended {
		return s.fault(replyMailSyntaxParams)
	}
	return s.fault(replyMailSyntax)
}

func (s *Session) rcptSyntax() Reply {
	if s.Extended {
		return s.fault(replyRcptSyntaxParams)
	}
	return s.fault(replyRcptSyntax)
}

func (s *Session) helloFirst() Reply {
	if s.Mode == LMTP {
		return s.fault(replyLhloFirst)
	}
	return s.fault(replyHelloFirst)
}

// sequence answers a command out of sequence. What a client pipelined behind a
// MAIL or RCPT that was refused is no fault of its own.
func (s *Session) sequence(r Reply) Reply {
	if s.refused || s.refusedRcpts > 0 {
		return r
	}
	return s.fault(r)
}
