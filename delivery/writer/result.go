package writer

import (
	"context"
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Limits of an answer; the writer cuts what is longer.
const (
	maxText = 4 << 10 // octets of a text for people
	maxOp   = 64
	maxFile = 2*maxPath + 1024 // octets of the path of a file
)

// causes are the errors that survive the trip besides an errno, each by its bit.
// Their order is part of the protocol.
var causes = [...]error{
	maildir.ErrRoot, maildir.ErrOwner, maildir.ErrPath, maildir.ErrBusy, maildir.ErrQuota, maildir.ErrQuotaSize,
	context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF,
}

const (
	resultDelivered = iota
	resultFound     // delivered before, see maildir.Target.Seek
	resultFailed
)

func appendResult(b []byte, i uint32, r *maildir.Result) []byte {
	start := len(b)
	b = appendUint32(beginFrame(b, frameResult), i)
	b = appendText(b, clip(r.File, maxFile))
	b = appendText(b, clip(r.Folder, maxFolder))
	for _, n := range []int64{r.Size, r.Usage.Octets, r.Usage.Messages, r.Stale, int64(r.Open), int64(r.Write), int64(r.Sync), int64(r.Name)} {
		b = appendCount(b, max(n, 0)) // a clock may be set back
	}
	outcome := byte(resultDelivered)
	switch {
	case r.Err != nil:
		outcome = resultFailed
	case r.Found:
		outcome = resultFound
	}
	b = append(b, outcome)
	if r.Err != nil {
		b = appendFailure(b, r.Err)
	}
	if r.Warning == nil {
		b = append(b, 0)
	} else {
		b = appendFailure(append(b, 1), r.Warning)
	}
	return endFrame(b, start)
}

// appendFailure appends an error of the writer process.
func appendFailure(b []byte, err error) []byte {
	e := &maildir.Error{Op: opAsk, Err: err}
	errors.As(err, &e)
	b = appendText(b, clip(e.Op, maxOp))
	b = appendText(b, clip(e.Path, maxFile))
	b = appendUint32(appendUint32(b, e.UID), e.GID)
	b = appendText(b, clip(e.Missing, maxText))
	var errno syscall.Errno
	errors.As(e.Err, &errno)
	var bits uint32
	for i, cause := range causes {
		if errors.Is(e.Err, cause) {
			bits |= 1 << i
		}
	}
	b = appendUint32(appendUint32(b, uint32(errno)), bits)
	b = appendText(b, clip(e.Err.Error(), maxText))
	var q *maildir.QuotaError
	if !errors.As(e.Err, &q) {
		return append(b, 0)
	}
	return appendQuotaError(append(b, 1), q)
}

// appendQuotaError appends the figures of a full mailbox; the cause is among the
// causes.
func appendQuotaError(b []byte, q *maildir.QuotaError) []byte {
	since := int64(0) // microseconds; 0: not known
	if !q.Since.IsZero() {
		since = q.Since.UnixMicro()
	}
	for _, n := range []int64{q.Usage.Octets, q.Usage.Messages, q.Limit.Octets, q.Limit.Messages, since} {
		b = appendCount(b, max(n, 0))
	}
	return b
}

// quotaError takes what appendQuotaError has appended.
func (d *decoder) quotaError(cause error) *maildir.QuotaError {
	q := &maildir.QuotaError{
		Cause: cause,
		Usage: maildir.Usage{Octets: d.count("usage"), Messages: d.count("messages")},
		Limit: maildir.Quota{Octets: d.count("quota"), Messages: d.count("quota of messages")},
	}
	if since := d.count("time"); since > 0 {
		q.Since = time.UnixMicro(since)
	}
	return q
}

func decodeResult(payload []byte) (i uint32, r maildir.Result, err error) {
	d := decoder{rest: payload}
	i = d.uint32("index")
	r.File, r.Folder = d.text(maxFile, "file"), d.text(maxFolder, "folder")
	r.Size = d.count("size")
	r.Usage = maildir.Usage{Octets: d.count("usage"), Messages: d.count("messages")}
	r.Stale = d.count("number of stale files")
	for _, lap := range []*time.Duration{&r.Open, &r.Write, &r.Sync, &r.Name} {
		*lap = time.Duration(d.count("duration"))
	}
	switch kind := d.octet("outcome"); {
	case d.err != nil:
	case kind == resultFailed:
		r.Err = d.failure()
	case kind == resultFound:
		r.Found = true
	case kind != resultDelivered:
		d.fail("outcome is %d", kind)
	}
	switch warning := d.octet("warning"); {
	case d.err != nil:
	case warning == 1:
		r.Warning = d.failure()
	case warning != 0:
		d.fail("warning is %d", warning)
	}
	return i, r, d.end()
}

// failure takes what appendFailure has appended.
func (d *decoder) failure() error {
	e := &maildir.Error{
		Op: d.text(maxOp, "op"), Path: d.text(maxFile, "path"),
		UID: d.uint32("uid"), GID: d.uint32("gid"), Missing: d.text(maxText, "missing permission"),
	}
	errno, bits := syscall.Errno(d.uint32("errno")), d.uint32("causes")
	f := &failure{text: d.text(maxText, "error")}
	if bits>>len(causes) != 0 {
		d.fail("causes are %#x", bits)
	}
	if errno != 0 {
		f.causes = append(f.causes, errno)
	}
	for i, cause := range causes {
		if bits&(1<<i) != 0 {
			f.causes = append(f.causes, cause)
		}
	}
	quota := error(maildir.ErrQuota)
	if !slices.Contains(f.causes, quota) {
		quota = maildir.ErrQuotaSize
	}
	switch kind := d.octet("figures of the quota"); {
	case kind == 1 && slices.Contains(f.causes, quota):
		f.causes = append(f.causes, d.quotaError(quota))
	case kind != 0:
		d.fail("figures of the quota are %d", kind)
	}
	e.Err = f
	return e
}

// failure is an error of the writer process: its text, and what errors.Is finds in it.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return f.text }
func (f *failure) Unwrap() []error { return f.causes }

// Failures of the way to the writer process, for errors.Is. Nothing was delivered
// as far as the front knows, and the next attempt may succeed.
var (
	// ErrUnavailable: no writer process took the request.
	ErrUnavailable = errors.New("the writer process is not available")
	// ErrLost: the connection broke, or the writer went silent, before it had
	// answered. The copy may have been delivered.
	ErrLost = errors.New("the writer process was lost before it answered")
	// ErrRefused: the writer process takes no request from this one.
	ErrRefused = errors.New("the writer process refuses this one")
)

// opAsk is the Op of errors on the way to the writer process.
const opAsk = "ask the writer process"
