package protocol

// Settle gives the outcome of tx.Rcpts[i], from any goroutine. In LMTP mode the
// reply goes out as soon as the data is complete and the recipients before it
// are settled (RFC 2033 section 4.2); a reply that stands for the default is
// 250 2.0.0, with the ID of the transaction if it has one. It is an error to settle an index twice, one that does not exist, or
// after Deliver has returned; none of them does any harm.
func (tx *Transaction) Settle(i int, r Reply) error {
	r = tx.reply(r)
	if !r.final() {
		return errNotALevel
	}
	tx.mu.Lock()
	switch {
	case tx.phase == settleDone:
		tx.mu.Unlock()
		return ErrTooLate
	case i < 0 || i >= len(tx.Rcpts):
		tx.mu.Unlock()
		return ErrNoRcpt
	}
	if tx.results == nil {
		tx.results = make([]Reply, len(tx.Rcpts))
	}
	if tx.results[i].Code != 0 {
		tx.mu.Unlock()
		return ErrSettled
	}
	tx.results[i] = r
	due, pass := tx.advance(), tx.pass
	tx.mu.Unlock()
	if due {
		tx.Session.wire.push()
	}
	if pass != nil {
		return pass(i, r)
	}
	return nil
}

// reply is r, or what it stands for if that is the default.
func (tx *Transaction) reply(r Reply) Reply {
	if r.Code != 0 {
		return r
	}
	def := replyOK
	if tx.ID != "" {
		def.Text = "OK queued as " + tx.ID
	}
	return r.or(def)
}

// advance hands the replies whose turn has come to the writer.
func (tx *Transaction) advance() (due bool) {
	if tx.phase != settleReply || tx.Session.Mode != LMTP {
		return false
	}
	s, later := tx.Session, false
	for tx.sent < len(tx.results) && tx.results[tx.sent].Code != 0 {
		last := tx.sent == len(tx.results)-1
		if last && s.markReplies(tx) {
			later = true // one write for it and the replies to those commands
		}
		s.wire.put(tx.results[tx.sent], tx.Mail.UTF8, s.enhanced())
		tx.sent++
		due = true
	}
	return due && !later
}

// dataComplete lets the replies go: the message has arrived whole.
func (tx *Transaction) dataComplete() {
	tx.mu.Lock()
	tx.phase = settleReply
	due := tx.advance()
	tx.mu.Unlock()
	if due {
		tx.Session.wire.push()
	}
}

// settleRest gives r to every recipient that has no result; with all set, to
// every one, settled or not (nothing has been sent then). It ends the transaction.
func (tx *Transaction) settleRest(r Reply, all bool) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.phase == settleDone {
		return
	}
	if tx.results == nil {
		tx.results = make([]Reply, len(tx.Rcpts))
	}
	for i := range tx.results {
		if all || tx.results[i].Code == 0 {
			tx.results[i] = r
		}
	}
	tx.phase = settleReply
	tx.advance()
	tx.phase = settleDone
}

// abandon ends a transaction without a reply: its client is gone.
func (tx *Transaction) abandon() {
	tx.mu.Lock()
	tx.phase = settleDone
	tx.mu.Unlock()
}

// worst is the one reply of SMTP mode for a handler that settled recipients and
// returned nil: a temporary refusal before a permanent one, since only the
// permanent one makes the client give up; a zero Reply if none was refused.
func (tx *Transaction) worst() (worst Reply) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	for _, r := range tx.results {
		if !r.OK() && (worst.Code == 0 || r.Temporary() && !worst.Temporary()) {
			worst = r
		}
	}
	return worst
}

// count adds the outcomes to the server's counts.
func (tx *Transaction) count(c *counters) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	for _, r := range tx.results {
		c.reply(r)
	}
}

// Results are the outcomes by index of Rcpts once the transaction is over; before
// that, a zero Reply stands for a recipient that is not settled. The slice is the
// caller's own.
func (tx *Transaction) Results() []Reply {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return append([]Reply(nil), tx.results...)
}
