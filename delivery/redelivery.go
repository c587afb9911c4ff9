package delivery

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/userdb"
)

// Redelivery remembers copies whose replies the client may not have seen, so that
// the same content from the same sender for the same recipient is answered without
// a second copy when it comes again. It survives the process, kill -9 included: its
// records go to a file in the state directory before a copy gets its name, when it
// is on disk, and when the client has shown that it has seen the reply.
//
// What a client sends on purpose is delivered as often as it is sent: a client that
// goes on after its replies has seen them, and nothing is remembered then. Nor does
// a transaction that is still going on stand for another one, unless its client is
// gone. Message-ID plays no part.
//
// Its methods are safe for concurrent use; one Redelivery serves all agents of a
// state directory.
type Redelivery struct {
	opts RedeliveryOptions

	mu       sync.Mutex
	log      *redeliveryLog
	attempts map[redeliveryKey]*attempt // those of a key are a list by next
	n        int
	oldest   *attempt // all of them are a list by newer
	newest   *attempt
}

// RedeliveryOptions set a Redelivery up. The zero value is what most sites want.
type RedeliveryOptions struct {
	Entries int           // copies remembered at most, the oldest make room; 0: 100,000
	Age     time.Duration // how long; 0: five days, for as long as MTAs try
	// Weak says that a copy may be reported before it is on disk (any durability
	// but full): after a power cut, nothing that is remembered is believed then.
	Weak bool
	// Patience is how long a recipient waits for another transaction whose client is
	// gone, and that may yet deliver to it; 0: 30 seconds.
	Patience time.Duration
	Clock    func() time.Time // nil: time.Now
	// Log hears when the file cannot be written: what is not in it is not
	// remembered across a restart, and deliveries go on. nil: slog.Default.
	Log *slog.Logger
}

const (
	defaultEntries = 100_000
	defaultAge     = 5 * 24 * time.Hour
	// A fate is mostly known when a disk has answered; a relay may take minutes, and
	// the reply is better there before this client has no patience either.
	defaultPatience = 30 * time.Second
	// maxLooks is how many equal transactions that go on at the same time are
	// looked at; whoever sends more of them does it on purpose.
	maxLooks = 8
)

// redeliveryKey stands for sender, recipient and content.
type redeliveryKey [16]byte

// newRedeliveryKey makes a key; content is the SHA-256 of the message as it came.
func newRedeliveryKey(content [sha256.Size]byte, from string, to userdb.Address) redeliveryKey {
	b := make([]byte, 0, 512)
	b = append(b, content[:]...)
	for _, s := range []string{from, to.Local, to.Detail, to.Domain} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return redeliveryKey(sum[:16])
}

// attempt is one copy that was begun, and perhaps delivered.
type attempt struct {
	key   redeliveryKey
	token uint64 // part of the name of its file
	at    int64  // unix seconds
	done  bool   // it is delivered; else it may be, and its token says where to look
	// owner is the transaction that waits to learn whether its replies were seen.
	// nil: it is over, and they may not have been. Then the attempt counts.
	owner *claim
	lost  bool // no longer remembered

	next         *attempt // another of the same key
	older, newer *attempt
}

// tokenText is the token as it stands in a file name.
func (a *attempt) tokenText() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], a.token)
	return hex.EncodeToString(b[:])
}

// peer is the client of a transaction. Gone reports, without waiting, that it has
// closed the connection.
type peer interface{ Gone() bool }

// claim is what one transaction has to do with a Redelivery.
type claim struct {
	r    *Redelivery
	peer peer
	over chan struct{} // closed by end

	kept     bool // what is delivered counts even if the replies were seen; guarded by r.mu, as all below
	attempts []*attempt
	records  []byte // begun attempts that are not in the file yet
}

// OpenRedelivery reads what is remembered in a state directory, and keeps others
// away from it until Close. The error is that of the file, or ErrInUse.
func OpenRedelivery(dir string, opts RedeliveryOptions) (*Redelivery, error) {
	if opts.Entries <= 0 {
		opts.Entries = defaultEntries
	}
	if opts.Age <= 0 {
		opts.Age = defaultAge
	}
	if opts.Patience <= 0 {
		opts.Patience = defaultPatience
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	r := &Redelivery{opts: opts, attempts: map[redeliveryKey]*attempt{}}
	l, err := openRedeliveryLog(dir, !opts.Weak, r.replay)
	if err != nil {
		return nil, err
	}
	r.log = l
	r.expire()
	r.compact()
	return r, nil
}

// Close ends the use of the file. Nothing may use r afterwards.
func (r *Redelivery) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.close()
}

// Len is the number of copies that are remembered, those included whose
// transactions are not over.
func (r *Redelivery) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// claim begins a transaction. Its end must be called.
func (r *Redelivery) claim(p peer) *claim {
	return &claim{r: r, peer: p, over: make(chan struct{})}
}

// verdict is what is known about a copy that is to be written.
type verdict struct {
	attempt *attempt
	again   bool            // it was delivered before: do not write it
	seek    bool            // it may have been: look for its token first
	wait    <-chan struct{} // not nil: ask again when this is closed
}

// begin asks about one copy, and notes that it is about to be written unless the
// verdict is another one. commit has to follow before it gets its name.
func (c *claim) begin(key redeliveryKey) verdict {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	looks := 0
	for a := r.attempts[key]; a != nil && looks < maxLooks; a = a.next {
		if a.owner == nil {
			a.owner = c
			c.attempts = append(c.attempts, a)
			return verdict{attempt: a, again: a.done, seek: !a.done}
		}
		if looks++; a.owner != c && a.owner.peer.Gone() {
			return verdict{wait: a.owner.over}
		}
	}
	a := &attempt{key: key, token: newToken(), at: r.opts.Clock().Unix(), owner: c}
	r.add(a)
	c.attempts = append(c.attempts, a)
	c.records = a.append(c.records, recordBegun)
	return verdict{attempt: a}
}

func newToken() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:])
}

// commit brings what begin has noted into the file.
func (c *claim) commit() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.write(c.records)
	c.records = nil
}

// delivered notes that a copy is on disk. It comes before the reply.
func (c *claim) delivered(a *attempt) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !a.done && !a.lost {
		a.done = true
		var b [recordSize]byte
		c.r.write(a.append(b[:0], recordDone))
	}
}

// failed forgets a copy that was certainly not delivered.
func (c *claim) failed(a *attempt) {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if !a.lost {
		var b [recordSize]byte
		c.r.write(a.append(b[:0], recordForgotten))
		c.r.remove(a)
	}
}

// keep says that the one reply for all recipients asks the client to come again, for
// those too that have been served.
func (c *claim) keep() {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.kept = true
}

// end is the end of a transaction: seen says that the client has seen its replies.
// A copy whose fate is not known is kept in mind all the same.
func (c *claim) end(seen bool) {
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	var b []byte
	for _, a := range c.attempts {
		switch {
		case a.lost:
		case seen && a.done && !c.kept:
			b = a.append(b, recordForgotten)
			r.remove(a)
		default:
			a.owner = nil
		}
	}
	c.attempts = nil
	r.write(b)
	close(c.over)
}

// add remembers an attempt. The caller holds mu, as for all below.
func (r *Redelivery) add(a *attempt) {
	for r.n >= r.opts.Entries {
		r.remove(r.oldest)
	}
	a.next = r.attempts[a.key]
	r.attempts[a.key] = a
	if a.older = r.newest; a.older != nil {
		a.older.newer = a
	} else {
		r.oldest = a
	}
	r.newest = a
	r.n++
}

func (r *Redelivery) remove(a *attempt) {
	a.lost = true
	if first := r.attempts[a.key]; first != a {
		for first.next != a {
			first = first.next
		}
		first.next = a.next
	} else if a.next != nil {
		r.attempts[a.key] = a.next
	} else {
		delete(r.attempts, a.key)
	}
	if a.older != nil {
		a.older.newer = a.newer
	} else {
		r.oldest = a.newer
	}
	if a.newer != nil {
		a.newer.older = a.older
	} else {
		r.newest = a.older
	}
	a.next, a.older, a.newer = nil, nil, nil
	r.n--
}

// expire forgets what is too old. The file need not be told: it knows the times.
func (r *Redelivery) expire() {
	limit := r.opts.Clock().Add(-r.opts.Age).Unix()
	for r.oldest != nil && r.oldest.at < limit {
		r.remove(r.oldest)
	}
}

// replay takes one record of the file.
func (r *Redelivery) replay(rec record) {
	a := r.attempts[rec.key]
	for a != nil && a.token != rec.token {
		a = a.next
	}
	switch {
	case rec.kind == recordForgotten:
		if a != nil {
			r.remove(a)
		}
	case a == nil:
		r.add(&attempt{key: rec.key, token: rec.token, at: rec.at, done: rec.kind == recordDone})
	case rec.kind == recordDone:
		a.done = true
	}
}

// write appends records to the file, and makes a new one of what is remembered
// when it has grown enough.
func (r *Redelivery) write(records []byte) {
	if len(records) == 0 {
		return
	}
	if err := r.log.append(records); err != nil {
		r.fault("cannot be written", err)
		return
	}
	if r.log.grown() {
		r.compact()
	}
}

func (r *Redelivery) compact() {
	records := make([]byte, 0, (r.n+1)*recordSize)
	for a := r.oldest; a != nil; a = a.newer {
		kind := byte(recordBegun)
		if a.done {
			kind = recordDone
		}
		records = a.append(records, kind)
	}
	if err := r.log.replace(records); err != nil {
		r.fault("cannot be replaced", err)
	}
}

// fault tells the operator once for each row of failures.
func (r *Redelivery) fault(what string, err error) {
	if r.log.failed {
		return
	}
	r.log.failed = true
	r.opts.Log.Error("memory of deliveries "+what+": a redelivery may make a second copy after a restart", "file", r.log.path, "error", err)
}
