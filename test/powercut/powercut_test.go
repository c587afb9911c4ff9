package powercut

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const flushLatency = 500 * time.Microsecond

// outcome counts the points of one recording.
type outcome struct {
	points  int
	flushes int            // in the log
	with    map[string]int // points with this kind of fault
	bad     int            // points with any
	untorn  int            // those of them where no write was torn
	gone    int            // those of these where fsck has not put all into lost+found
	rescued int            // points at which the superblock was torn
	first   []string       // some of them
	took    time.Duration  // for all points
}

func (o outcome) String() string {
	var kinds []string
	for k, n := range o.with {
		kinds = append(kinds, fmt.Sprintf("%s at %d", k, n))
	}
	sort.Strings(kinds)
	return fmt.Sprintf("%d points of a log with %d flushes: %d with faults (%s), %d superblocks torn, %v a point",
		o.points, o.flushes, o.bad, strings.Join(kinds, ", "), o.rescued, (o.took / time.Duration(max(1, o.points))).Round(time.Millisecond))
}

// choose returns n points: flush boundaries, the moment after a 250, and any.
func (r *recording) choose(n int, rng *rand.Rand) []int {
	var boundaries, marks []int
	for i, e := range r.entries {
		switch e.Kind {
		case kindFlush:
			boundaries = append(boundaries, i, i+1)
		case kindMark:
			marks = append(marks, i+1)
		}
	}
	rng.Shuffle(len(boundaries), func(i, j int) { boundaries[i], boundaries[j] = boundaries[j], boundaries[i] })
	rng.Shuffle(len(marks), func(i, j int) { marks[i], marks[j] = marks[j], marks[i] })
	chosen := append([]int(nil), boundaries[:min(n/2, len(boundaries))]...)
	chosen = append(chosen, marks[:min(n/4, len(marks))]...)
	for len(chosen) < n {
		chosen = append(chosen, rng.IntN(len(r.entries)+1))
	}
	slices.Sort(chosen)
	return chosen
}

// try records one load on a new disk and cuts at n points.
func try(t *testing.T, f filesystem, l load, n int, start func(string) (func() (session, error), func())) outcome {
	t.Helper()
	f.need(t)
	d := startDisk(t, f.size, flushLatency)
	r := record(t, d, &f, l, start)
	mnt := filepath.Join(tempDir(t), "cut")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("%s: %d entries, %d copies acknowledged, seed %d", f.name, len(r.entries), len(r.copies), seed)
	o := outcome{with: make(map[string]int)}
	for _, e := range r.entries {
		if e.Kind == kindFlush {
			o.flushes++
		}
	}
	begin := time.Now()
	for i, point := range r.choose(n, rand.New(rand.NewPCG(seed, 0))) {
		c := Cut{Point: point, Mode: Mode(i) % modes, Seed: seed}
		d.call(t, "Cut", c, &struct{}{})
		faults, rescued := examine(&f, d.path, mnt, c.Mode, r.acknowledged(point))
		if rescued {
			o.rescued++
		}
		o.points++
		kinds := make(map[string]bool)
		for _, ft := range faults {
			if !kinds[ft.kind] && o.with[ft.kind] < 3 {
				o.first = append(o.first, fmt.Sprintf("cut before entry %d (%v): %s: %s", point, c.Mode, ft.kind, ft.text))
			}
			kinds[ft.kind] = true
		}
		for k := range kinds {
			o.with[k]++
		}
		if len(kinds) > 0 {
			o.bad++
			if c.Mode != Torn {
				o.untorn++
				if len(kinds) > 1 || !kinds[faultMoved] {
					o.gone++
				}
			}
		}
	}
	o.took = time.Since(begin)
	return o
}

// examine mounts a disk after a cut and looks at everything.
func examine(f *filesystem, disk, mnt string, mode Mode, acknowledged map[copyID]bool) (faults []fault, rescued bool) {
	system := func(err error) {
		if err != nil {
			faults = append(faults, fault{faultSystem, err.Error()})
		}
	}
	if f.repair != nil {
		_ = f.command(f.repair, disk) // it exits with 1 where it has repaired
	}
	err := f.mount(disk, mnt)
	if err != nil && mode == Torn && f.rescue != nil {
		// A superblock of several sectors may be torn, and the operator has to put
		// a copy in its place.
		_ = f.command(f.rescue, disk)
		if rescued = true; f.mount(disk, mnt) != nil {
			return nil, true // btrfs: no copy was whole either, and nothing can be said
		}
		err = nil
	}
	if err != nil {
		system(err)
		return faults, rescued
	}
	if rescued {
		// A sync on btrfs renews the first superblock only, so that a copy is as old
		// as the last commit of everything. No program can do anything about that.
		acknowledged = nil
	}
	moved, err := orphans(filepath.Join(mnt, "lost+found"))
	system(err)
	found, _, err := check(filepath.Join(mnt, "mail"), acknowledged, moved)
	system(err)
	system(unmount(mnt))
	system(f.command(f.fsck, disk))
	return append(faults, found...), rescued
}

func report(t *testing.T, what string, o outcome) {
	t.Helper()
	t.Logf("%s: %v", what, o)
	for _, s := range o.first {
		t.Logf("    %.300s", s)
	}
}

// sound fails the test if any point has a fault.
func sound(t *testing.T, what string, o outcome) {
	t.Helper()
	report(t, what, o)
	if o.bad > 0 {
		t.Errorf("%s: faults at %d of %d points", what, o.bad, o.points)
	}
}

// A short run of the real program on ext4, and one in which it has to be caught.
func TestShort(t *testing.T) {
	sound(t, "lmtpd", try(t, ext4, shortLoad, 24, startLMTPD(t, shortLoad, "full", false)))
	sound(t, "lmtpd with links", try(t, ext4, shortLoad, 12, startLMTPDWith(t, shortLoad, "full", false, singleInstance)))
	o := try(t, ext4, shortLoad, 12, startLMTPD(t, shortLoad, "none", false))
	report(t, "lmtpd without syncs", o)
	if o.with[faultLost] == 0 {
		t.Error("lmtpd with durability none was not caught: this test proves nothing")
	}
}

// The real program with full durability: no fault at any point.
func TestPowerCut(t *testing.T) {
	n := long(t)
	for _, f := range filesystems {
		for way, noTmpfile := range map[string]bool{"unnamed": false, "by tmp": true} {
			t.Run(f.name+"/"+way, func(t *testing.T) {
				sound(t, f.name+", "+way, try(t, f, fullLoad, n, startLMTPD(t, fullLoad, "full", noTmpfile)))
			})
		}
	}
}

// The journal of ext4 in its other modes: the deliveries of one moment have one commit
// there too.
func TestJournals(t *testing.T) {
	n := long(t)
	for _, f := range []filesystem{ext4Writeback, ext4Journal} {
		t.Run(f.name, func(t *testing.T) {
			sound(t, f.name, try(t, f, fullLoad, n, startLMTPD(t, fullLoad, "full", false)))
		})
	}
}

// sharedLoad has many messages to several users, whose copies are one file.
var sharedLoad = load{single: 6, sessions: 4, each: 3, wide: 12, recipients: 25, large: 4, users: 24, neighbour: true, smallOctets: 4 << 10}

const singleInstance = "single_instance = true\n"

// The same with copies that are links to one file: with one to many more than once on
// its way, and in both ways of making it.
func TestSingleInstance(t *testing.T) {
	n := long(t)
	for _, f := range filesystems {
		for way, noTmpfile := range map[string]bool{"unnamed": false, "by tmp": true} {
			t.Run(f.name+"/"+way, func(t *testing.T) {
				sound(t, f.name+", links, "+way, try(t, f, sharedLoad, n, startLMTPDWith(t, sharedLoad, "full", noTmpfile, singleInstance)))
			})
		}
	}
	t.Run("careless", func(t *testing.T) {
		o := try(t, ext4, sharedLoad, max(40, n/5), startLMTPDWith(t, sharedLoad, "file", false, singleInstance))
		report(t, "links, durability file", o)
		if o.with[faultLost] < o.points/4 {
			t.Errorf("lost mail at %d of %d points only", o.with[faultLost], o.points)
		}
	})
}

// cloneLoad has large messages to several users, whose copies share blocks.
var cloneLoad = load{single: 6, sessions: 2, each: 2, wide: 2, recipients: 16, large: 2, wideLarge: 4, users: 24, neighbour: true, smallOctets: 4 << 10}

// The same with copies that are clones of one of them, where there is such a thing.
func TestClones(t *testing.T) {
	n := long(t)
	for _, f := range filesystems {
		if f.name == "xfs" || f.name == "btrfs" {
			t.Run(f.name, func(t *testing.T) {
				sound(t, f.name+", clones", try(t, f, cloneLoad, n, startLMTPD(t, cloneLoad, "full", false)))
			})
		}
	}
}

// hotLoad has many messages at once for two mailboxes.
var hotLoad = load{sessions: 16, each: 40, users: 2, neighbour: true, smallOctets: 1 << 10}

// Without a journal the file system's own blocks may be torn, and mail with them; but
// where none is, what was acknowledged is there, if no directory has an index. One that
// has is written in several places when a block of it is full, and a cut in between takes
// the names of all that was in the block: fsck puts the files into lost+found. It does so
// with the last blocks of a directory of many extents. A message that was acknowledged
// before its name was on disk is not there: it is still in tmp/, or nowhere.
func TestWithoutJournal(t *testing.T) {
	n := long(t)
	for _, c := range []struct {
		name    string
		f       filesystem
		load    load
		mailbox string
	}{
		{"copies", ext4Unindexed, fullLoad, ""},
		{"links", ext4Unindexed, sharedLoad, singleInstance},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := try(t, c.f, c.load, n, startLMTPDWith(t, c.load, "full", false, c.mailbox))
			report(t, c.f.name+", "+c.name, o)
			if o.untorn > 0 {
				t.Errorf("faults at %d of %d points without a torn write", o.untorn, o.points)
			}
		})
	}
	for _, c := range []struct {
		name string
		f    filesystem
		load load
	}{
		{"indexed", ext4NoJournal, fullLoad},
		{"many at once", ext4Unindexed, hotLoad},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := try(t, c.f, c.load, n, startLMTPD(t, c.load, "full", false))
			report(t, c.f.name+", "+c.name, o)
			if o.gone > 0 {
				t.Errorf("more than names is lost at %d of %d points without a torn write", o.gone, o.points)
			}
		})
	}
}

// The same program told to be careless has to be caught on every file system.
func TestCareless(t *testing.T) {
	n := max(40, long(t)/5)
	for _, f := range filesystems {
		for _, durability := range []string{"file", "none"} {
			t.Run(f.name+"/"+durability, func(t *testing.T) {
				o := try(t, f, fullLoad, n, startLMTPD(t, fullLoad, durability, false))
				report(t, f.name+", durability "+durability, o)
				if o.with[faultLost] < o.points/4 {
					t.Errorf("lost mail at %d of %d points only", o.with[faultLost], o.points)
				}
			})
		}
	}
}

func ioctlPointer[T any](fd int, request uint, p *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(unsafe.Pointer(p)))
	if errno != 0 {
		return errno
	}
	return nil
}
