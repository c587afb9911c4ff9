package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// call is one request of a Client and its answer.
type call struct {
	client  *Client
	body    *outgoing
	targets []maildir.Target
	part    []int // indexes of this request's targets
	done    func(i int, r maildir.Result)
	asks    bool // whether the body would fit; there is none

	left     int    // targets without a result
	answered []bool // those with one, by place in part
}

func (q *call) run(ctx context.Context) {
	conn, err := q.submit(ctx)
	if err == nil {
		err = q.results(ctx, conn)
	}
	q.client.counts().over(err)
	for n, i := range q.part {
		if !q.answered[n] {
			q.done(i, q.client.failed(&q.targets[i], err))
		}
	}
}

// submit brings the whole request to a writer. A writer begins with a request only
// once it has all of it, so one that could not be sent to its end may be sent again.
func (q *call) submit(ctx context.Context) (*packetConn, error) {
	until := time.Now().Add(orDefault(q.client.Wait, 5*time.Second))
	pause := 5 * time.Millisecond
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
		conn, used, err := q.client.connect(ctx)
		if err == nil {
			if err = q.send(ctx, conn); err == nil {
				return conn, nil
			}
			err = errors.Join(refusal(conn), err)
			q.client.drop(conn)
		}
		switch {
		case errors.Is(err, ErrRefused):
			return nil, err
		case used: // its writer has ended since; there may be another
			if ctx.Err() == nil {
				q.client.counts().Reconnects.Add(1)
			}
			continue
		case !mayPass(err) || time.Now().After(until):
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		pause = min(2*pause, 250*time.Millisecond)
	}
}

// mayPass reports whether connecting again may help: the writer restarts, or has
// more connections in its backlog than it takes.
func mayPass(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENOENT, syscall.ECONNREFUSED, syscall.EAGAIN, syscall.EPIPE, syscall.ECONNRESET,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// refusal is what the writer has said before it closed a connection, if anything.
func refusal(conn *packetConn) error {
	conn.conn.SetReadDeadline(time.Now().Add(time.Second))
	for range 2 { // the first error may be that of the connection, with a packet behind it
		err := conn.receive(func(packet []byte, fd int) error {
			closeFD(fd)
			return frames(packet, func(kind byte, payload []byte) error {
				if kind == frameRefused {
					return refused(payload)
				}
				return nil
			})
		})
		if errors.Is(err, ErrRefused) {
			return err
		}
	}
	return nil
}

// send sends the request. After an error the writer does not have all of it.
func (q *call) send(ctx context.Context, conn *packetConn) error {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.conn.SetWriteDeadline(past)
		close(fired)
	})
	err := q.write(ctx, conn)
	if !stop() {
		<-fired
		conn.conn.SetWriteDeadline(time.Time{})
	}
	return err
}

func (q *call) write(ctx context.Context, conn *packetConn) error {
	buf := packets.Get().(*[maxPacket]byte)
	defer packets.Put(buf)
	packet, fd := newPacket(buf[:]), q.body.fd
	flush := func() error {
		err := conn.send(packet, fd)
		packet, fd = newPacket(buf[:]), -1
		return err
	}
	head := begin{size: q.body.Size, lines: q.body.Lines, body: bodyInline, targets: uint32(len(q.part))}
	if fd >= 0 {
		head.body = bodyFile
	} else if q.asks {
		head.body = bodyNone
	}
	if deadline, ok := ctx.Deadline(); ok {
		head.timeout = max(time.Until(deadline), 1)
	}
	packet = head.append(packet)
	for _, i := range q.part {
		t := &q.targets[i]
		if len(packet)+targetSize(t) > maxPacket {
			if err := flush(); err != nil {
				return err
			}
		}
		packet = appendTarget(packet, t)
	}
	for rest := q.body.inline; len(rest) > 0; {
		if len(packet)+frameHead >= maxPacket {
			if err := flush(); err != nil {
				return err
			}
		}
		n := min(len(rest), maxPacket-len(packet)-frameHead)
		start := len(packet)
		packet = endFrame(append(beginFrame(packet, frameData), rest[:n]...), start)
		rest = rest[n:]
	}
	return flush()
}

// results waits for the result of each target. The connection is the client's again
// afterwards, or closed.
func (q *call) results(ctx context.Context, conn *packetConn) error {
	grace := orDefault(q.client.Grace, 10*time.Second)
	if q.asks {
		grace = 0 // an answer that comes late is of no use
	}
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		conn.conn.SetDeadline(time.Now().Add(grace))
		_ = conn.send([]byte(cancelPacket), -1) // if it cannot be sent, the end of the connection says the same
	})
	err := q.collect(conn)
	if stop() && err == nil {
		q.client.keep(conn)
		return nil
	}
	q.client.drop(conn) // a cancel that comes late must not meet the next request
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: %w", ErrLost, context.Cause(ctx))
	case !errors.Is(err, ErrRefused):
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}

func (q *call) collect(conn *packetConn) error {
	broken := false
	for q.left > 0 {
		err := conn.receive(q.packet)
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNRESET) && !broken:
			broken = true // results may lie behind the error
		case err == io.EOF:
			return errors.New("it closed the connection")
		default:
			return err
		}
	}
	return nil
}

// packet takes results.
func (q *call) packet(packet []byte, fd int) error {
	if fd >= 0 {
		closeFD(fd)
		return fmt.Errorf("%w: descriptor in an answer", errProtocol)
	}
	return frames(packet, func(kind byte, payload []byte) error {
		switch kind {
		case frameResult:
			n, r, err := decodeResult(payload)
			if err != nil {
				return err
			}
			if uint64(n) >= uint64(len(q.part)) || q.answered[n] {
				return fmt.Errorf("%w: result for target %d", errProtocol, n)
			}
			q.answered[n] = true
			q.left--
			q.client.counts().answer(r.Err)
			q.done(q.part[n], r)
			return nil
		case frameRefused:
			return refused(payload)
		}
		return fmt.Errorf("%w: frame %q in an answer", errProtocol, kind)
	})
}

// refused is the error that a refusal stands for.
func refused(payload []byte) error {
	why, err := decodeRefused(payload)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrRefused, why)
}
