package powercut

import (
	"fmt"
	"testing"
)

// What each order of the steps shows a reader after a power cut, on each file
// system. Those with a name before the data must be caught: else the others prove
// nothing.
func TestOrders(t *testing.T) {
	n := long(t)
	all := append(append([]filesystem(nil), filesystems...), ext4Writeback, ext4NoJournal)
	for _, f := range all {
		for _, o := range []order{strict, again, byTmp, oneCommit, hinted, nameFirst, fileOnly, unsynced} {
			t.Run(fmt.Sprintf("%s/%v", f.name, o), func(t *testing.T) {
				got := try(t, f, writerLoad, n, startWriter(o))
				report(t, fmt.Sprintf("%s, %v", f.name, o), got)
			})
		}
	}
}
