package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// session is one connection of the front on the writer's side. It carries one
// request at a time. run receives in one goroutine; another writes the copies.
type session struct {
	srv  *Server
	conn *packetConn
	req  *request // that arrives
	busy *job     // that is under way; nil: none. It belongs to run

	mu       sync.Mutex
	working  bool // as busy != nil, for drain
	draining bool
	deaf     bool // nothing will arrive any more, by our own doing
}

// job is a request whose copies are written.
type job struct {
	cancel context.CancelCauseFunc
	over   chan struct{}
}

var (
	errCancelled = fmt.Errorf("the front has cancelled: %w", context.Canceled)
	errGone      = fmt.Errorf("the front is gone: %w", context.Canceled)
)

func (n *session) run() {
	defer n.conn.conn.Close()
	if n.isDraining() {
		n.drain()
	}
	err := n.serve()
	n.req.drop()
	if n.busy != nil {
		// Nobody is left to be told what becomes of the copies; those without a
		// name are not worth finishing, they come again.
		if !n.isDeaf() {
			n.busy.cancel(errGone)
		}
		<-n.busy.over
	}
	if err == io.EOF || errors.Is(err, net.ErrClosed) || n.isDeaf() {
		return
	}
	n.srv.log().Error("connection of the front is closed", "error", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errors.New("the request took too long to arrive")
	}
	n.conn.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = n.conn.send(appendRefused(newPacket(nil), err.Error()), -1)
}

// serve receives until there is nothing more or something is wrong.
func (n *session) serve() error {
	for {
		if err := n.conn.receive(n.packet); err != nil {
			return err
		}
	}
}

// packet takes what arrives.
func (n *session) packet(packet []byte, fd int) error {
	if string(packet) == cancelPacket && fd < 0 {
		if n.busy != nil {
			n.busy.cancel(errCancelled)
		}
		return nil
	}
	if n.busy != nil {
		// The front sends the next request once it has all results: the job is
		// about to end.
		<-n.busy.over
		n.busy = nil
	}
	begins := !n.req.open
	if err := n.req.take(packet, fd); err != nil {
		return err
	}
	complete := n.req.complete()
	if begins && !complete {
		n.conn.conn.SetReadDeadline(time.Now().Add(orDefault(n.srv.Incomplete, 30*time.Second)))
	}
	if !complete {
		return nil
	}
	if !begins {
		n.conn.conn.SetReadDeadline(time.Time{})
	}
	req := n.req
	n.req = newRequest()
	return n.start(req)
}

// start has the copies of a request written.
func (n *session) start(req *request) error {
	defer req.drop()
	body, release, err := req.incoming()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(n.srv.base)
	stop := context.CancelFunc(func() {})
	if req.timeout > 0 {
		ctx, stop = context.WithTimeout(ctx, req.timeout)
	}
	j := &job{cancel, make(chan struct{})}
	n.busy = j
	n.setWorking(true)
	go func() {
		defer close(j.over)
		if req.body == bodyNone {
			n.check(ctx, req.size, &req.all[0])
		} else {
			n.write(ctx, body, req.all)
		}
		stop()
		cancel(nil)
		release()
		n.setWorking(false)
	}()
	return nil
}

// check answers whether size octets would fit.
func (n *session) check(ctx context.Context, size int64, t *maildir.Target) {
	var r maildir.Result
	w, ok := n.srv.Writer.(interface {
		CheckQuota(ctx context.Context, t maildir.Target, size int64) (maildir.Usage, error)
	})
	if r.Err = n.authorize(ctx, t); r.Err == nil && ok {
		r.Usage, r.Err = w.CheckQuota(ctx, *t, size)
	}
	n.send(0, &r)
}

// authorizers is how many targets of a request are looked up at a time.
const authorizers = 8

// write has the copies written that are allowed. Those whose answer is there go
// on, so that a lookup that hangs holds nobody else up.
func (n *session) write(ctx context.Context, body maildir.Body, targets []maildir.Target) {
	if len(targets) == 1 {
		if err := n.authorize(ctx, &targets[0]); err != nil {
			n.result(0, maildir.Result{Err: err})
			return
		}
		n.srv.Writer.Deliver(ctx, body, targets, n.result)
		return
	}
	type answer struct {
		i   int
		err error
	}
	next, answers := make(chan int), make(chan answer, len(targets))
	go func() {
		defer close(next)
		for i := range targets {
			next <- i
		}
	}()
	for range min(authorizers, len(targets)) {
		go func() {
			for i := range next {
				answers <- answer{i, n.authorize(ctx, &targets[i])}
			}
		}()
	}
	var all sync.WaitGroup
	defer all.Wait()
	for left := len(targets); left > 0; {
		var allowed []maildir.Target
		var index []int
		take := func(a answer) {
			left--
			if a.err != nil {
				n.result(a.i, maildir.Result{Err: a.err})
				return
			}
			allowed, index = append(allowed, targets[a.i]), append(index, a.i)
		}
		take(<-answers)
		for more := true; more && left > 0; {
			select {
			case a := <-answers:
				take(a)
			default:
				more = false
			}
		}
		if len(allowed) > 0 {
			all.Go(func() {
				n.srv.Writer.Deliver(ctx, body, allowed, func(i int, r maildir.Result) { n.result(index[i], r) })
			})
		}
	}
}

// authorize asks whether a copy may be written. Its error is a *maildir.Error.
func (n *session) authorize(ctx context.Context, t *maildir.Target) error {
	var err error
	if t.Owner == nil && os.Geteuid() == 0 {
		err = fmt.Errorf("%w: the target names none, and the writer process is root", maildir.ErrOwner)
	} else {
		err = n.srv.Authorize(ctx, t)
		for i := 0; i < maxAsked && err != nil && n.srv.pause(ctx, n.srv.Behind/maxAsked); i++ {
			err = n.srv.Authorize(ctx, t)
		}
	}
	if err == nil {
		return nil
	}
	e := &maildir.Error{Op: maildir.OpCheck, Path: t.Root, Err: err}
	if t.Owner != nil {
		e.UID, e.GID = t.Owner.UID, t.Owner.GID
	}
	n.srv.log().Warn("copy refused", "account", t.Account, "root", t.Root, "path", t.Path, "uid", e.UID, "gid", e.GID, "error", err)
	return e
}

// maxAsked is how often Authorize is asked again.
const maxAsked = 4

// pause waits, for no longer than the server goes on; false: there is nothing to wait for.
func (s *Server) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 || s.isEnding() {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// result tells the front what has become of a copy.
func (n *session) result(i int, r maildir.Result) {
	if n.srv.Report != nil {
		n.srv.Report(r)
	}
	n.send(i, &r)
}

func (n *session) send(i int, r *maildir.Result) {
	buf := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buf)
	n.conn.conn.SetWriteDeadline(time.Now().Add(orDefault(n.srv.Silence, 30*time.Second)))
	if err := n.conn.send(appendResult(newPacket(buf[:]), uint32(i), r), -1); err != nil {
		n.srv.log().Warn("the front cannot be told of a result", "error", err, "file", r.File, "failure", r.Err)
		n.conn.conn.Close() // ends the other copies too
	}
}

// drain lets the session end once its request is over. Requests that the front has
// sent by then are served; the next one it cannot send.
func (n *session) drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.draining = true
	n.deafen()
}

// makeWay ends the session if it idles, and reports whether it does.
func (n *session) makeWay() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.working || n.draining {
		return false
	}
	n.draining = true
	n.deafen()
	return true
}

func (n *session) setWorking(w bool) {
	n.mu.Lock()
	n.working = w
	n.deafen()
	n.mu.Unlock()
	// In this order: Server.room sets crowded and then looks who idles.
	if !w && n.srv.isCrowded() {
		n.makeWay()
	}
}

// deafen ends what can arrive, if the session drains and nothing is under way. What
// is in the socket's queue stays there to be received. The caller holds mu.
func (n *session) deafen() {
	if n.draining && !n.working && !n.deaf {
		n.deaf = true
		_ = n.conn.conn.CloseRead()
	}
}

func (n *session) isDraining() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.draining
}

func (n *session) isDeaf() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.deaf
}
