package maildir

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Account is what a mailbox holds and may hold.
type Account struct {
	Usage   Usage
	Limit   Quota     // of Target.Quota, or of maildirsize where that has none
	Counted bool      // the mailbox was counted now, and Usage is not from maildirsize
	Since   time.Time // since when mail is refused; zero: none is
}

// Fits is nil if a message of size octets would fit; else a *QuotaError.
func (a *Account) Fits(size int64) error {
	if cause := a.Limit.verdict(a.Usage, size); cause != nil {
		return &QuotaError{Cause: cause, Usage: a.Usage, Limit: a.Limit, Since: a.Since}
	}
	return nil
}

// verdict is ErrQuota or ErrQuotaSize where a message does not fit.
func (q *Quota) verdict(u Usage, size int64) error {
	switch {
	case q.Exempt:
	case q.Octets > 0 && size > q.Octets && !q.Grace:
		return ErrQuotaSize
	case q.over(u, size):
		return ErrQuota
	}
	return nil
}

// recountTries bounds how often a mailbox is counted that changes meanwhile.
const recountTries = 5

// ErrChanging: mail came or went while a mailbox was counted.
var ErrChanging = errors.New("mailbox changes while it is counted")

// Account says what a mailbox holds, by its maildirsize or, where that is missing or
// cannot be used, by counting. It writes nothing. A mailbox that does not exist yet is
// empty; the errors are those of a delivery.
func (w *Writer) Account(ctx context.Context, t Target) (Account, error) {
	a := newAccount(&t)
	err := w.inMailbox(ctx, &t, func(d *delivery, box int) error {
		s, ok, err := d.readAccount(box, &a)
		if err != nil {
			return err
		}
		if a.Usage, a.Counted = s.usage, !ok; !ok {
			if a.Usage, _, _, err = d.count(box, &a.Limit); err != nil {
				return err
			}
		}
		var st unix.Stat_t
		if unix.Fstatat(box, overFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			a.Since = time.Unix(st.Mtim.Unix())
		}
		return nil
	})
	return a, err
}

// Recount counts a mailbox and writes its maildirsize anew, unless there is no limit of
// ours and no maildirsize: then nobody keeps accounts of it. Other errors than those of
// a delivery: ErrChanging.
func (w *Writer) Recount(ctx context.Context, t Target) (Account, error) {
	a := newAccount(&t)
	err := w.inMailbox(ctx, &t, func(d *delivery, box int) error {
		_, ok, err := d.readAccount(box, &a)
		if err != nil {
			return err
		}
		a.Counted = true
		if a.Limit.Octets == 0 && a.Limit.Messages == 0 && !ok {
			a.Usage, _, _, err = d.count(box, &a.Limit)
			return err
		}
		for range recountTries {
			var settled bool
			if a.Usage, settled, err = d.recount(box, &a.Limit); err != nil || settled {
				break
			}
			err = d.fail(OpQuota, d.abs(d.t.Path), ErrChanging)
		}
		if err == nil {
			err = d.res.Warning // maildirsize could not be written
		}
		if err == nil && a.Fits(0) == nil {
			unix.Unlinkat(box, overFile, 0)
		}
		return err
	})
	return a, err
}

// newAccount is that of a mailbox that does not exist.
func newAccount(t *Target) (a Account) {
	if t.Quota != nil {
		a.Limit = *t.Quota
	}
	return a
}

// readAccount reads maildirsize, and gives a its limit where there is no other. One that
// cannot be used (ok is false) is no error, but one that may not be read is.
func (d *delivery) readAccount(box int, a *Account) (s sizes, ok bool, err error) {
	s, ok, err = d.readSizes(box)
	if errors.Is(err, unix.EACCES) {
		return s, false, err
	}
	if a.Limit.Octets == 0 && a.Limit.Messages == 0 && ok {
		a.Limit.Octets, a.Limit.Messages = s.limit.Octets, s.limit.Messages
	}
	return s, ok, nil
}

// inMailbox calls f with the mailbox open, as its owner; not at all for one that does
// not exist.
func (w *Writer) inMailbox(ctx context.Context, t *Target, f func(d *delivery, box int) error) error {
	d := newDelivery(ctx, w, &Body{}, t, 0)
	if err := d.check(); err != nil {
		return err
	}
	return d.asOwner(func() error {
		defer d.close()
		if err := d.openRoot(); err != nil {
			return err
		}
		box, err := d.openDir(d.t.Path, readDir)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		defer unix.Close(box)
		return f(d, box)
	})
}

// countedFolders bounds what is held of a mailbox while it is counted: its owner can make
// any number of folders.
const countedFolders = 1 << 14

// count adds up the mailbox and its folders. It returns the directories that it has
// counted, and when the one that had changed last had done so.
func (d *delivery) count(box int, limit *Quota) (u Usage, dirs []string, latest unix.Timespec, err error) {
	if _, err := unix.Seek(box, 0, 0); err != nil { // it may have been read before
		return u, nil, latest, d.fail(OpQuota, d.abs(d.t.Path), err)
	}
	folders := []string{""}
	more, err := d.seekIn(box, d.t.Path, func(name string) bool {
		if name[0] != '.' || !validFolder(name) || contains(limit.Ignore, name) {
			return false
		}
		if len(folders) > countedFolders {
			return true
		}
		folders = append(folders, name)
		return false
	})
	if err != nil {
		return u, nil, latest, err
	}
	if more != "" {
		d.res.Warning = d.fail(OpQuota, d.abs(d.t.Path), fmt.Errorf("only %d folders are counted", countedFolders))
	}
	for _, f := range folders {
		for _, sub := range []string{"new", "cur"} {
			rel := path.Join(d.t.Path, f, sub)
			changed, err := d.countDir(rel, &u)
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
				continue
			}
			if err != nil {
				return u, nil, latest, err
			}
			dirs = append(dirs, rel)
			if later(changed, latest) {
				latest = changed
			}
		}
	}
	return u, dirs, latest, nil
}
