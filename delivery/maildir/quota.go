package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrQuota: the mailbox is full. ErrQuotaSize: the message alone is larger than the
// mailbox may be, so that it will never fit; it is no ErrQuota.
var (
	ErrQuota     = errors.New("mailbox is over quota")
	ErrQuotaSize = errors.New("message is larger than the quota of the mailbox")
)

// Quota says how much a mailbox with all its folders may hold. It is accounted for in
// the file maildirsize of the Maildir++ text
// (https://www.courier-mta.org/imap/README.maildirquota.html), which Dovecot and
// Courier keep as well. Like theirs it is voluntary: copies that come at the same
// moment may go past it together.
//
// As Dovecot does, and other than the text says, messages in a folder Trash and those
// that are marked as trashed count too, unless Ignore names the folder.
type Quota struct {
	Octets   int64    // 0: no limit
	Messages int64    // 0: no limit
	Grace    bool     // what is not over quota may go over it with one message
	Ignore   []string // folders as stored (".Trash") that do not count
	Exempt   bool     // the message counts, and is never refused
}

// Usage is what a mailbox holds.
type Usage struct{ Octets, Messages int64 }

const (
	sizeFile  = "maildirsize"
	overFile  = "lmtpd-overquota" // is there while mail is refused; its time says since when
	maxSize   = 5120              // octets of maildirsize, beyond which it is made anew
	sizeStale = 15 * time.Minute  // how long it is believed that a mailbox is full
	sizeLine  = 14                // octets that a line is filled up to, as Courier does for NFS
)

// QuotaError is behind the *Error of a copy that is refused for its quota.
type QuotaError struct {
	Cause error     // ErrQuota or ErrQuotaSize
	Usage Usage     // before the message
	Limit Quota     //
	Since time.Time // since when mail is refused; zero if that is not known
}

func (e *QuotaError) Error() string {
	of := func(n, limit int64, what string) string {
		if limit == 0 {
			return fmt.Sprintf("%d %s", n, what)
		}
		return fmt.Sprintf("%d %s of %d", n, what, limit)
	}
	return fmt.Sprintf("%v: %s, %s", e.Cause, of(e.Usage.Octets, e.Limit.Octets, "octets"), of(e.Usage.Messages, e.Limit.Messages, "messages"))
}

// Unwrap returns the cause.
func (e *QuotaError) Unwrap() error { return e.Cause }

// over reports whether a message of size octets does not fit.
func (q *Quota) over(u Usage, size int64) bool {
	if q.Exempt {
		return false
	}
	if q.Grace {
		return q.Octets > 0 && u.Octets >= q.Octets || q.Messages > 0 && u.Messages >= q.Messages
	}
	return q.Octets > 0 && u.Octets > q.Octets-size || q.Messages > 0 && u.Messages >= q.Messages
}

// definition is the first line of maildirsize.
func (q *Quota) definition() string {
	s := ""
	if q.Octets > 0 || q.Messages == 0 {
		s = strconv.FormatInt(q.Octets, 10) + "S"
	}
	if q.Messages > 0 {
		if s != "" {
			s += ","
		}
		s += strconv.FormatInt(q.Messages, 10) + "C"
	}
	return s
}

// sizes is a maildirsize that has been read.
type sizes struct {
	limit Quota
	usage Usage
	lines int // below the first
	stale bool
	size  int64 // octets of the file
}

// parseSizes reads maildirsize; ok is false for one that must be made anew.
func parseSizes(text []byte) (s sizes, ok bool) {
	if len(text) > maxSize {
		return s, false
	}
	return addSizes(text)
}

// addSizes is parseSizes of a text of any length.
func addSizes(text []byte) (s sizes, ok bool) {
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return s, false
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	for part := range strings.SplitSeq(strings.TrimSpace(string(first)), ",") {
		if part == "" {
			return s, false
		}
		n, err := strconv.ParseInt(part[:len(part)-1], 10, 64)
		switch kind := part[len(part)-1]; {
		case err != nil || n < 0:
			return s, false
		case kind == 'S':
			s.limit.Octets = n
		case kind == 'C':
			s.limit.Messages = n
		default:
			return s, false
		}
	}
	for line := range bytes.Lines(rest) {
		words := strings.Fields(string(line))
		if len(words) != 2 {
			return s, false
		}
		octets, err1 := strconv.ParseInt(words[0], 10, 64)
		messages, err2 := strconv.ParseInt(words[1], 10, 64)
		if err1 != nil || err2 != nil || addOverflows(s.usage.Octets, octets) || addOverflows(s.usage.Messages, messages) {
			return s, false
		}
		s.usage.Octets += octets
		s.usage.Messages += messages
		s.lines++
	}
	return s, s.lines > 0 && s.usage.Octets >= 0 && s.usage.Messages >= 0
}

func addOverflows(a, b int64) bool {
	return b > 0 && a > math.MaxInt64-b || b < 0 && a < math.MinInt64-b
}

// checkQuota refuses a message of size octets that does not fit, and opens
// maildirsize for the line that this message adds to it.
func (d *delivery) checkQuota(size int64) error {
	q := d.t.Quota
	if q == nil {
		return nil
	}
	limit := *q
	unlimited := limit.Octets == 0 && limit.Messages == 0
	if unlimited && d.hasNoSizes() {
		return nil
	}
	box, err := d.openDir(d.t.Path, readDir)
	if err != nil {
		return err
	}
	defer unix.Close(box)
	s, ok, err := d.readSizes(box)
	if err != nil {
		d.res.Warning = err // it is made anew
	}
	if unlimited {
		// No limit of ours: those of the file hold, if there is one.
		if !ok {
			return nil
		}
		limit.Octets, limit.Messages = s.limit.Octets, s.limit.Messages
	}
	same := s.limit.Octets == limit.Octets && s.limit.Messages == limit.Messages
	if !ok || !same || limit.over(s.usage, size) && (s.lines > 1 || s.stale) {
		if s.usage, _, err = d.recount(box, &limit); err != nil {
			return err
		}
		s.size = -1
	}
	d.res.Usage, d.usageAt = s.usage, s.size
	if err := d.judge(box, &limit, size); err != nil {
		return err
	}
	if d.asks {
		return nil // it is mail that is taken which ends the time of refusals
	}
	if !limit.Exempt {
		unix.Unlinkat(box, overFile, 0)
	}
	d.openSizes(box)
	return nil
}

// hasNoSizes reports, by one call, what is so in most mailboxes without a limit: that
// there is no maildirsize.
func (d *delivery) hasNoSizes() bool {
	fd, err := unix.Openat2(d.root, path.Join(d.t.Path, sizeFile), &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err == nil {
		unix.Close(fd)
	}
	return err == unix.ENOENT
}

// judge refuses a message for which there is no room beside what d.res.Usage says; box
// is -1 if there is no mailbox yet.
func (d *delivery) judge(box int, limit *Quota, size int64) error {
	if limit == nil {
		return nil
	}
	cause := limit.verdict(d.res.Usage, size)
	if cause == nil {
		return nil
	}
	e := &QuotaError{Cause: cause, Usage: d.res.Usage, Limit: *limit}
	if cause == ErrQuota && box >= 0 {
		e.Since = d.overSince(box)
	}
	return d.fail(OpQuota, d.abs(d.t.Path), e)
}

// CheckQuota says whether a message of size octets would fit now, and what the
// mailbox holds. It makes no mailbox, but may make maildirsize anew. The error is
// that of a delivery.
func (w *Writer) CheckQuota(ctx context.Context, t Target, size int64) (Usage, error) {
	d := newDelivery(ctx, w, &Body{}, &t, 0)
	d.asks = true
	err := d.check()
	if err == nil {
		err = d.asOwner(func() error {
			defer d.close()
			if err := d.openRoot(); err != nil {
				return err
			}
			err := d.checkQuota(size)
			if errors.Is(err, unix.ENOENT) { // it will be made, and is empty
				return d.judge(-1, t.Quota, size)
			}
			return err
		})
	}
	return d.res.Usage, err
}

// readSizes reads maildirsize; ok is false if it is missing or cannot be used.
func (d *delivery) readSizes(box int) (s sizes, ok bool, err error) {
	rel := path.Join(d.t.Path, sizeFile)
	var st unix.Stat_t
	if unix.Fstatat(box, sizeFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Size > maxSize {
		return s, false, nil
	}
	text, err := d.readFile(box, sizeFile, rel)
	if err != nil {
		return s, false, err
	}
	s, ok = parseSizes(text)
	s.size = int64(len(text))
	s.stale = d.w.now().Sub(time.Unix(st.Mtim.Unix())) >= sizeStale
	return s, ok, nil
}

// openSizes opens maildirsize to append to it, and to read what came before. Where that fails, the mailbox is
// counted anew some time.
func (d *delivery) openSizes(box int) {
	fd, err := unix.Openat(box, sizeFile, unix.O_RDWR|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		d.sizes = fd
	}
}

// account adds the message to maildirsize. It is in the mailbox already, so that a
// failure is no more than a warning.
func (d *delivery) account() {
	if d.sizes < 0 {
		return
	}
	line := fmt.Sprintf("%-*s\n", sizeLine-1, fmt.Sprintf("%d 1", d.res.Size))
	err := d.do(OpQuota, d.abs(path.Join(d.t.Path, sizeFile)), func() error { return writeFull(d.sizes, []byte(line)) })
	if err != nil {
		d.res.Warning = err
		return
	}
	d.res.Usage.Octets += d.res.Size
	d.res.Usage.Messages++
	d.usageByLines(int64(len(line)))
}

// usageByLines makes the usage what the lines up to the one just written add up to,
// which has length octets. Of copies that come at the same moment each then knows
// another usage, in the order of their lines, so that a threshold is passed by one of
// them. Where nobody has written since the file was read, that is known already.
func (d *delivery) usageByLines(length int64) {
	end, err := unix.Seek(d.sizes, 0, unix.SEEK_CUR) // O_APPEND has set it
	if err != nil || end-length == d.usageAt || end <= 0 || end > 2*maxSize {
		return
	}
	text := make([]byte, end)
	if n, err := unix.Pread(d.sizes, text, 0); err != nil || int64(n) != end {
		return
	}
	if s, ok := addSizes(text); ok {
		d.res.Usage = s.usage
	}
}

// overSince notes that mail is refused, and returns since when.
func (d *delivery) overSince(box int) time.Time {
	fd, err := unix.Openat(box, overFile, unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, d.w.fileMode())
	if err != nil {
		return time.Time{}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return time.Time{}
	}
	return time.Unix(st.Mtim.Unix())
}

// recount counts the mailbox and writes maildirsize anew, unless something has changed
// meanwhile: settled is false then.
func (d *delivery) recount(box int, limit *Quota) (u Usage, settled bool, err error) {
	u, dirs, latest, err := d.count(box, limit)
	if err != nil {
		return u, false, err
	}
	for _, rel := range dirs {
		var st unix.Stat_t
		fd, err := d.openDir(rel, searchDir)
		if err == nil {
			err = unix.Fstat(fd, &st)
			unix.Close(fd)
		}
		if err != nil || later(st.Mtim, latest) {
			unix.Unlinkat(box, sizeFile, 0) // somebody else counts, or the next delivery
			return u, false, nil
		}
	}
	text := fmt.Sprintf("%s\n%-*s\n", limit.definition(), sizeLine-1, fmt.Sprintf("%d %d", u.Octets, u.Messages))
	if err := d.writeSizes(box, text); err != nil {
		d.res.Warning = err // the next delivery has to count again
	}
	return u, true, nil
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

func later(a, b unix.Timespec) bool {
	return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec
}

// countDir adds the messages in a directory to u and returns when it had changed
// last before they were read.
func (d *delivery) countDir(rel string, u *Usage) (changed unix.Timespec, err error) {
	fd, err := d.openDir(rel, readDir)
	if err != nil {
		return changed, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return changed, d.fail(OpQuota, d.abs(rel), err)
	}
	_, err = d.seekIn(fd, rel, func(name string) bool {
		if name[0] == '.' {
			return false
		}
		size, ok := sizeInName(name)
		if !ok {
			var file unix.Stat_t
			if unix.Fstatat(fd, name, &file, unix.AT_SYMLINK_NOFOLLOW) != nil {
				return false // a reader has moved it
			}
			size = file.Size
		}
		if !addOverflows(u.Octets, size) {
			u.Octets += size
		}
		u.Messages++
		return false
	})
	return st.Mtim, err
}

// sizeInName reads ",S=nnn" in the name of a message.
func sizeInName(name string) (int64, bool) {
	_, rest, ok := strings.Cut(name, ",S=")
	if !ok {
		return 0, false
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	if end == 0 || end < len(rest) && rest[end] != ',' && rest[end] != ':' {
		return 0, false
	}
	n, err := strconv.ParseInt(rest[:end], 10, 64)
	return n, err == nil
}

// writeSizes puts a new maildirsize in place, by way of tmp/ as the text says.
func (d *delivery) writeSizes(box int, text string) error {
	rel := path.Join(d.t.Path, "tmp")
	tmp, err := d.openDir(rel, searchDir)
	if err != nil {
		return err
	}
	defer unix.Close(tmp)
	name := d.newFileName()
	abs := d.abs(path.Join(rel, name))
	fd := -1
	err = d.do(OpCreate, abs, func() (err error) {
		fd, err = unix.Openat(tmp, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_CLOEXEC, d.w.fileMode())
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = d.setMode(fd, abs, d.w.fileMode())
	if err == nil {
		err = d.do(OpQuota, abs, func() error { return writeFull(fd, []byte(text)) })
	}
	if err == nil {
		err = d.do(OpRename, d.abs(path.Join(d.t.Path, sizeFile)), func() error { return unix.Renameat(tmp, name, box, sizeFile) })
	}
	if err != nil {
		unix.Unlinkat(tmp, name, 0)
	}
	return err
}
