package delivery

import (
	"context"
	"errors"
	"fmt"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// Authorize is what the writer process asks before it writes a copy, so that it need
// not believe the front: it looks t.Account up by itself, and t must have the owner,
// the root and the path that belong to it. The supplementary groups become those that
// are found here. A mismatch is maildir.ErrOwner or maildir.ErrPath; where the lookup
// fails, the copy has to wait.
//
// The folder is not compared: it cannot lead out of the mailbox.
func (a *Agent) Authorize(ctx context.Context, t *maildir.Target) error {
	addr, err := a.Rules.ParseString(t.Account)
	var r *recipient
	if err == nil {
		r, err = a.lookup(ctx, addr)
	}
	switch {
	case errors.Is(err, userdb.ErrNoSuchUser), errors.Is(err, userdb.ErrBadAddress), errors.Is(err, userdb.ErrDisabled):
		// Not wrapped: RCPT has answered that the account exists, so it is for later.
		return fmt.Errorf("%w: %v", maildir.ErrOwner, err)
	case err != nil:
		return err
	}
	if t.Root != r.root || t.Path != r.path {
		return fmt.Errorf("%w: the mailbox of %s is %q in %q, and not %q in %q",
			maildir.ErrPath, t.Account, r.path, r.root, t.Path, t.Root)
	}
	if have, want := t.Owner, r.owner(); have == nil || want == nil {
		if have != nil || want != nil {
			return fmt.Errorf("%w: either mail of %s belongs to whoever runs this, or to an account of its own", maildir.ErrOwner, t.Account)
		}
	} else if have.UID != want.UID || have.GID != want.GID {
		return fmt.Errorf("%w: mail of %s belongs to %d:%d, and not to %d:%d",
			maildir.ErrOwner, t.Account, want.UID, want.GID, have.UID, have.GID)
	}
	t.Owner = r.owner()
	return nil
}
