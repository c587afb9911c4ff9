package delivery

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
)

// message is one message on its way.
type message struct {
	id       string
	session  uint64
	from     string // reverse-path
	received string // our Received field up to its BY clause
	with     string // the protocol that it came by; "" is none
	binary   bool   // its octets are stored as they came
	params   protocol.MailParams
	rcpts    []*recipient
	spooled  *spooled
	took     time.Duration // spooling it
	claim    *claim        // nil: no memory of redeliveries
}

// copyOf is one copy of a message: of all recipients that mean the same mailbox
// under the same address.
type copyOf struct {
	rcpts   []int // indexes into message.rcpts
	attempt *attempt
	seek    bool            // it may have been handed over before
	wait    <-chan struct{} // of the verdict, with errUnderWay
}

func (a *Agent) spool(m *message, size int64, body io.Reader) (err error) {
	start := time.Now()
	s := a.Spool
	s.CRLF = s.CRLF || m.binary
	s.sum = a.Redelivery != nil
	s.fields = a.fields // newID has been called
	s.mark = a.Trace.relayMark()
	m.spooled, err = s.take(body, size)
	m.took = time.Since(start)
	return err
}

// deliver writes one copy for each distinct recipient and calls settle once for
// each index of m.rcpts, as soon as its outcome is known.
func (a *Agent) deliver(ctx context.Context, m *message, settle func(i int, o Outcome)) {
	var mu sync.Mutex // transports settle beside the maildirs
	finish := func(c *copyOf, fill func(*Outcome)) {
		mu.Lock()
		defer mu.Unlock()
		for n, i := range c.rcpts {
			o := m.outcome(i)
			o.Duplicate = n > 0
			fill(&o)
			a.report(o) // who has read the reply finds the log line
			settle(i, o)
		}
	}
	var handing sync.WaitGroup
	defer handing.Wait()
	left := a.start(ctx, m, m.copies(), &handing, finish)
	if len(left) == 0 {
		return
	}
	patience, cancel := context.WithTimeout(ctx, m.claim.r.opts.Patience)
	defer cancel()
	for more := true; more && len(left) > 0; {
		more = outlast(patience, left)
		left = a.start(ctx, m, left, &handing, finish)
	}
	for _, c := range left {
		finish(c, func(o *Outcome) { o.Reply, o.Err = replyFor(errUnderWay), errUnderWay })
	}
}

// start writes copies, hands over others, and gives those back that have to wait for
// another transaction.
func (a *Agent) start(ctx context.Context, m *message, all []*copyOf, handing *sync.WaitGroup, finish func(*copyOf, func(*Outcome))) (left []*copyOf) {
	var copies []*copyOf // those to be written; targets has the same indexes
	var targets []maildir.Target
	others := handovers{a: a, m: m, over: handing}
	now := a.Trace.now()
	for _, c := range all {
		var t maildir.Target
		var again bool
		var err error
		hand := m.rcpts[c.rcpts[0]].via != nil
		if hand {
			again, err = others.add(c, now)
		} else {
			t, again, err = a.target(m, c, now)
		}
		switch {
		case errors.Is(err, errUnderWay):
			left = append(left, c)
		case err != nil:
			finish(c, func(o *Outcome) { o.Reply, o.Err = replyFor(err), err })
		case again:
			finish(c, func(o *Outcome) { o.again() })
		case !hand:
			copies = append(copies, c)
			targets = append(targets, t)
		}
	}
	if m.claim != nil {
		m.claim.commit()
	}
	if a.SingleInstance {
		a.share(m, targets, now)
	}
	if m.spooled.File != nil && len(targets) > 1 {
		evenHeaders(targets)
	}
	others.start(ctx, finish)
	a.write(ctx, m.spooled.Body, targets, func(i int, res maildir.Result) {
		if m.claim != nil {
			m.claim.written(copies[i].attempt, targets[i].Seek, res.Err)
		}
		r := m.rcpts[copies[i].rcpts[0]]
		warning := a.warn(r, &targets[i], res)
		res.Err = a.judge(res.Err)
		finish(copies[i], func(o *Outcome) { o.fill(res) })
		if warning != nil {
			a.notify(warning, r, &targets[i])
		}
	})
	return left
}

// outlast waits for the transactions that copies have to wait for. false: not all of
// them have come to their end.
func outlast(ctx context.Context, left []*copyOf) bool {
	for _, c := range left {
		select {
		case <-c.wait:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// copies groups the recipients, in the order in which they came.
func (m *message) copies() []*copyOf {
	list := make([]*copyOf, 0, len(m.rcpts))
	at := make(map[recipientKey]*copyOf, len(m.rcpts))
	for i, r := range m.rcpts {
		c := at[r.key()]
		if c == nil {
			c = &copyOf{}
			at[r.key()] = c
			list = append(list, c)
		}
		c.rcpts = append(c.rcpts, i)
	}
	return list
}

// target is where a copy goes, unless there is a reason that it does not, or it has
// been there before.
func (a *Agent) target(m *message, c *copyOf, now time.Time) (t maildir.Target, again bool, err error) {
	r := m.rcpts[c.rcpts[0]]
	if err := a.loops(m, r); err != nil {
		return t, false, err
	}
	f := a.Folders.file(r, &m.spooled.header)
	t = maildir.Target{
		Owner: r.owner(), Root: r.root, Path: r.path, Folder: f.folder, MakeFolder: f.create,
		Header: a.Trace.header(m, r, now), Account: r.addr.String(),
	}
	if f.seen {
		t.Flags = "S"
	}
	if t.Quota, err = a.limits(r); err != nil {
		return t, false, err
	}
	if m.claim == nil {
		return t, false, nil
	}
	v, err := m.claim.ask(c, newRedeliveryKey(m.spooled.sum, m.from, r.addr))
	if err != nil || v.again {
		return t, v.again, err
	}
	c.attempt = v.attempt
	t.Token, t.Seek = v.attempt.tokenText(), v.seek
	return t, false, nil
}

// ask is begin for one copy of a message. errUnderWay: the client of another transaction
// is gone, and only the end of that shows what has become of the copy.
func (c *claim) ask(to *copyOf, key redeliveryKey) (verdict, error) {
	v := c.begin(key)
	if to.wait = v.wait; to.wait != nil {
		return v, errUnderWay
	}
	return v, nil
}

var errUnderWay = errors.New("message came before and is still being delivered to this recipient, for a client that is gone")

// written notes the outcome of a copy. One that failed is forgotten only if it
// certainly got no name; about any other the next attempt has to look.
func (c *claim) written(a *attempt, seek bool, err error) {
	if err == nil {
		c.delivered(a)
	} else if !seek && certainlyNot(err) {
		c.failed(a)
	}
}

// certainlyNot reports whether a copy failed before it could get its name.
func certainlyNot(err error) bool {
	var e *maildir.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Op {
	case maildir.OpCheck, maildir.OpWait, maildir.OpBecome, maildir.OpRoot, maildir.OpOpen, maildir.OpMkdir,
		maildir.OpChmod, maildir.OpSyncParent, maildir.OpUnnamed, maildir.OpCreate, maildir.OpRead,
		maildir.OpWrite, maildir.OpClone, maildir.OpWriteBack, maildir.OpSync:
		return true
	}
	return false
}

// write has the Writer write the targets and calls done with each result, in this
// goroutine: a client that does not read its replies, or a log that is slow, must
// not hold up a thread that others need to write.
func (a *Agent) write(ctx context.Context, b maildir.Body, targets []maildir.Target, done func(int, maildir.Result)) {
	if len(targets) == 0 {
		return
	}
	if len(targets) == 1 { // there is nobody who could be held up
		var res maildir.Result
		a.Writer.Deliver(ctx, b, targets, func(_ int, r maildir.Result) { res = r })
		done(0, res)
		return
	}
	type result struct {
		i int
		maildir.Result
	}
	results := make(chan result, len(targets))
	go func() {
		defer close(results)
		a.Writer.Deliver(ctx, b, targets, func(i int, r maildir.Result) { results <- result{i, r} })
	}()
	defer func() {
		for range results { // done has panicked: the body is in use until the end all the same
		}
	}()
	for r := range results {
		done(r.i, r.Result)
	}
}
