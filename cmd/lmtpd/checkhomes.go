package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// Bounds of what checkHomes looks at, and for how long: a user database may not
// answer, and a home may be on a file system that hangs.
const (
	homesChecked  = 1000
	homesPatience = 10 * time.Second
)

// checkHomes says which places of mail the running daemon's service hides or makes
// read-only (ProtectHome=, ReadWritePaths=), one warning for each directory of homes.
// It shows only while the process that writes mail runs, and only to root.
func (c *config) checkHomes(agent *delivery.Agent, view daemonView) (found configErrors) {
	users, ok := agent.Users.(userdb.Lister)
	if !ok || len(view.writers()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), homesPatience)
	defer cancel()
	look := &homesLooker{view: view, out: make(chan homeFault)}
	go func() {
		defer close(look.out)
		n := 0
		for a, err := range users.List(ctx) {
			if n++; n > homesChecked || ctx.Err() != nil {
				return
			}
			if err == nil {
				agent.Explain(ctx, a.String(), 0, look)
			}
		}
	}()
	for {
		select {
		case h, more := <-look.out:
			if !more {
				return found
			}
			f := c.doc.fault(c.doc.line("mailbox.path"), "mailbox.path", h.err.Error(),
				"mail there is deferred until it is so: systemctl edit "+view.unit()+", [Service] ReadWritePaths="+h.parent+", and restart it")
			f.Warning = true
			found = append(found, f)
		case <-ctx.Done():
			return found
		}
	}
}

// homesLooker looks at mailboxes through a daemon's eyes and reports what is wrong.
type homesLooker struct {
	view    daemonView
	out     chan homeFault
	parents []string // of the homes that have been reported
}

type homeFault struct {
	parent string
	err    error
}

func (l *homesLooker) Probe(ctx context.Context, t maildir.Target) (p maildir.Probe) {
	parent := filepath.Dir(t.Root)
	if slices.Contains(l.parents, parent) || stateOf(t.Root) == rootHidden {
		return p // homes may be made later
	}
	if err := l.view.compare(t.Root); err != nil {
		l.parents = append(l.parents, parent)
		select {
		case l.out <- homeFault{parent, err}:
		case <-ctx.Done():
		}
	}
	return p
}

func (l *homesLooker) Account(context.Context, maildir.Target) (maildir.Account, error) {
	return maildir.Account{}, nil
}
