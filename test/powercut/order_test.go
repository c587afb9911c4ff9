package powercut

import (
	"fmt"
	"testing"
)

// What each order of the steps shows a reader after a power cut, on each file
// system. Those that are wrong must be caught: else the others prove nothing. Where
// there is no journal nothing protects the file system's own blocks from being
// torn, so that even the best order is not asked to be without fault.
func TestOrders(t *testing.T) {
	n := long(t)
	all := append(append([]filesystem(nil), filesystems...), ext4Writeback, ext4NoJournal)
	for _, f := range all {
		for _, o := range []order{strict, again, byTmp, oneCommit, hinted, nameFirst, fileOnly, unsynced} {
			t.Run(fmt.Sprintf("%s/%v", f.name, o), func(t *testing.T) {
				got := try(t, f, writerLoad, n, startWriter(o))
				report(t, fmt.Sprintf("%s, %v", f.name, o), got)
				journal := f.name != ext4NoJournal.name
				switch lost, half := got.with[faultLost], got.with[faultHalf]; {
				case journal && o <= oneCommit && got.bad > 0:
					t.Errorf("faults at %d of %d points", got.bad, got.points)
				case o == fileOnly && lost == 0, o == unsynced && lost == 0,
					!journal && o == strict && lost < got.points/2,
					f.typ != "btrfs" && journal && o == nameFirst && half == 0 && n >= 100:
					t.Error("it was not caught: the others prove nothing")
				}
			})
		}
	}
}

// Where lmtpd lets deliveries share a commit, the sync of one directory brings to disk
// what was named in others before, and its content. It does not what was named after.
func TestSharedCommit(t *testing.T) {
	n := long(t)
	for _, f := range []filesystem{ext4, ext4Writeback, ext4Journal, xfs} {
		t.Run(f.name, func(t *testing.T) {
			sound(t, f.name, try(t, f, groupLoad, n, startWriter(shared)))
			o := try(t, f, groupLoad, n, startWriter(early))
			report(t, f.name+", too early", o)
			if o.with[faultLost] == 0 {
				t.Error("it was not caught: the other proves nothing")
			}
		})
	}
}
