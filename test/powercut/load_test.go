package powercut

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A session sends messages one after the other and tells of each copy once it is
// acknowledged.
type session func(message, size int, users []int, acknowledged func(i int)) error

// load is what is delivered while the disk logs.
type load struct {
	single      int // one session, one recipient
	sessions    int // at once, with
	each        int // messages of one recipient
	wide        int // messages to
	recipients  int // mailboxes, from each of two sessions
	large       int // messages of 1 MiB, over four sessions
	wideLarge   int // messages of 0.5 MiB to the mailboxes of one session
	users       int // whom all but the wide ones go to
	existing    bool
	neighbour   bool // another program that syncs its own file in between
	smallOctets int
}

var (
	fullLoad  = load{single: 50, sessions: 16, each: 12, wide: 3, recipients: 50, large: 12, users: 48, neighbour: true, smallOctets: 4 << 10}
	shortLoad = load{single: 12, sessions: 16, each: 3, wide: 1, recipients: 50, large: 2, users: 24, neighbour: true, smallOctets: 4 << 10}
	// The writers of this package know no recipients, and Maildirs are there.
	groupLoad  = load{single: 20, sessions: 8, each: 10, wide: 20, recipients: 16, users: 48, existing: true, neighbour: true, smallOctets: 4 << 10}
	writerLoad = load{single: 150, sessions: 16, each: 25, large: 4, users: 48, existing: true, neighbour: true, smallOctets: 4 << 10}
)

func (l *load) homes() int { return l.users + 2*l.recipients }

// recording is a log and what its marks stand for.
type recording struct {
	entries []Entry
	copies  []copyID // by number of the mark
}

// acknowledged is what had its 250 before a point.
func (r *recording) acknowledged(point int) map[copyID]bool {
	set := make(map[copyID]bool)
	for _, e := range r.entries[:point] {
		if e.Kind == kindMark {
			set[r.copies[e.N]] = true
		}
	}
	return set
}

// record makes a file system on the disk and runs the load there. start is
// called with the directory of the homes; open opens a session, stop ends all.
func record(t *testing.T, d *remoteDisk, f *filesystem, l load, start func(root string) (open func() (session, error), stop func())) *recording {
	t.Helper()
	if err := f.command(f.mkfs, d.path); err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(tempDir(t), "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.mount(d.path, mnt); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			unix.Unmount(mnt, unix.MNT_DETACH)
		}
	})
	root := filepath.Join(mnt, "mail")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	makeHomes(t, root, l.homes())
	for u := range l.homes() {
		if !l.existing {
			break
		}
		for _, sub := range []string{"cur", "tmp", "new"} {
			if err := os.MkdirAll(filepath.Join(root, userName(u), "Maildir", sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	unix.Sync()
	d.call(t, "Begin", struct{}{}, &struct{}{})
	open, stop := start(root)
	r, err := l.run(d, mnt, open)
	d.call(t, "End", struct{}{}, &r.entries)
	stop()
	if err != nil {
		t.Fatal(err)
	}
	if err := unmount(mnt); err != nil {
		t.Fatal(err)
	}
	mounted = false
	return r
}

// run runs all parts of the load, one after the other and then together.
func (l *load) run(d *remoteDisk, mnt string, open func() (session, error)) (*recording, error) {
	r := &recording{}
	var mu sync.Mutex
	tick := make(chan struct{}, 1)
	mark := func(id copyID) error {
		mu.Lock()
		n := len(r.copies)
		r.copies = append(r.copies, id)
		mu.Unlock()
		if n%3 == 0 {
			select {
			case tick <- struct{}{}:
			default:
			}
		}
		return d.rpc.Call("Remote.Mark", n, &struct{}{})
	}
	stopped := make(chan error, 1)
	go func() { stopped <- neighbour(mnt, l.neighbour, tick) }()

	var next, wideUser int
	number := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next
	}
	part := func(sessions, each, size int, users func(rng *rand.Rand, session int) []int) error {
		errs := make([]error, sessions)
		var wg sync.WaitGroup
		for s := range sessions {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(s), uint64(size)))
				send, err := open()
				for range each {
					if err != nil {
						break
					}
					to, message := users(rng, s), number()
					err = send(message, size, to, func(i int) { err = errors.Join(err, mark(copyID{message, to[i]})) })
				}
				errs[s] = err
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	anyone := func(rng *rand.Rand, _ int) []int { return []int{rng.IntN(l.users)} }
	everyone := func(_ *rand.Rand, s int) (all []int) {
		for i := range l.recipients {
			all = append(all, l.users+wideUser*l.recipients+s*l.recipients+i)
		}
		return all
	}
	const large = 1 << 20
	parts := []func() error{
		func() error { return part(1, l.single, l.smallOctets, anyone) },
		func() error { return part(l.sessions, l.each, l.smallOctets, anyone) },
		func() error { return part(min(2, l.wide), l.wide, l.smallOctets+1, everyone) },
		func() error { return part(min(4, l.large), l.large/4+1, large, anyone) },
		func() error { return part(min(1, l.wideLarge), l.wideLarge, large/2, everyone) },
	}
	var err error
	for _, p := range parts {
		if err == nil {
			err = p()
		}
	}
	if err == nil { // all at once
		all := make([]error, len(parts))
		var wg sync.WaitGroup
		for i, p := range parts {
			wg.Go(func() { all[i] = p() })
		}
		wg.Wait()
		err = errors.Join(all...)
	}
	close(tick)
	return r, errors.Join(err, <-stopped)
}

// neighbour is another program on the same file system: whenever it syncs a file
// of its own, the journal is committed with whatever is in it, but the data of
// others that has not been written back stays where it is.
func neighbour(mnt string, active bool, tick <-chan struct{}) error {
	f, err := os.Create(filepath.Join(mnt, "neighbour"))
	if err != nil {
		return err
	}
	defer f.Close()
	for range tick {
		if !active {
			continue
		}
		if _, err := f.WriteString("a line of somebody else's\n"); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		// btrfs would only log that file. This commits the whole, as it does by
		// itself every half minute; others do not know it.
		const btrfsStartSync = 2<<30 | 8<<16 | 0x94<<8 | 24
		var id uint64
		_ = ioctlPointer(int(f.Fd()), btrfsStartSync, &id)
	}
	return nil
}

// startLMTPD returns what record wants for the real program.
func startLMTPD(t *testing.T, l load, durability string, noTmpfile bool) func(string) (func() (session, error), func()) {
	return startLMTPDWith(t, l, durability, noTmpfile, "")
}

// startLMTPDWith has more lines for [mailbox].
func startLMTPDWith(t *testing.T, l load, durability string, noTmpfile bool, mailbox string) func(string) (func() (session, error), func()) {
	return func(root string) (func() (session, error), func()) {
		s := newSite(t, root, l.homes(), durability)
		s.noTmpfile = noTmpfile
		s.extra += mailbox
		s.start(t)
		open := func() (session, error) {
			c, err := s.dial()
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { c.conn.Close() })
			return func(message, size int, users []int, acknowledged func(int)) (err error) {
				e := c.send(message, size, users, func(i int, r string) {
					if strings.HasPrefix(r, "250 ") {
						acknowledged(i)
					} else {
						err = errors.Join(err, fmt.Errorf("message %d for %d: %s", message, users[i], r))
					}
				})
				return errors.Join(e, err)
			}, nil
		}
		return open, s.kill
	}
}

// startWriter returns what record wants for a writer of this package.
func startWriter(o order) func(string) (func() (session, error), func()) {
	return func(root string) (func() (session, error), func()) {
		w := &writer{root: root, order: o}
		open := func() (session, error) {
			return func(message, size int, users []int, acknowledged func(int)) error {
				if err := w.deliver(content(message, size), users); err != nil {
					return err
				}
				for i := range users {
					acknowledged(i)
				}
				return nil
			}, nil
		}
		return open, func() {}
	}
}
