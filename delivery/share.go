package delivery

import (
	"slices"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// share lets copies of one owner be one file. They get one header then, which names no
// recipient: whoever reads it may be one that the others were not to know of (Bcc). So
// these copies say nothing to Agent.LoopCheck. A message that loops comes back to one
// recipient at a time, whose copy is not shared, and is refused the next time.
func (a *Agent) share(m *message, targets []maildir.Target, now time.Time) {
	var header []byte
	for i := range targets {
		t := &targets[i]
		for j := i + 1; j < len(targets) && !t.Share; j++ {
			t.Share = sameOwner(t.Owner, targets[j].Owner)
		}
		if !t.Share {
			continue
		}
		if header == nil {
			header = a.Trace.header(m, nil, now)
		}
		t.Header = header
		for j := i + 1; j < len(targets); j++ {
			if !targets[j].Share && sameOwner(t.Owner, targets[j].Owner) {
				targets[j].Share = true
			}
		}
	}
}

func sameOwner(a, b *maildir.Owner) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UID == b.UID && a.GID == b.GID && slices.Equal(a.Groups, b.Groups)
}
