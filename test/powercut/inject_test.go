package powercut

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// injector sends messages to three users of the real lmtpd, whose mailboxes lie
// on the failing file system.
type injector struct {
	t       *testing.T
	disk    *faultyDir
	site    *site
	client  *client
	message int
	user    int // the next that nobody has had
}

const injectUsers = 2400

func newInjector(t *testing.T) *injector {
	needFuse(t)
	in := &injector{t: t, disk: startFaults(t)}
	makeHomes(t, in.disk.below, injectUsers)
	in.site = newSite(t, in.disk.path, injectUsers, "full")
	in.site.extra += "clean_tmp = false\n" // which comes after the reply, and at any time
	in.site.start(t)
	var err error
	if in.client, err = in.site.dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.client.conn.Close() })
	return in
}

// deliver sends one message to users and returns their replies.
func (in *injector) deliver(users ...int) []string {
	in.t.Helper()
	in.message++
	replies := make([]string, len(users))
	if err := in.client.send(in.message, 3000, users, func(i int, r string) { replies[i] = r }); err != nil {
		in.t.Fatal(err)
	}
	return replies
}

// files returns the names in a directory of a user's Maildir.
func (in *injector) files(user int, sub string) (names []string) {
	in.t.Helper()
	all, err := os.ReadDir(filepath.Join(in.disk.below, userName(user), "Maildir", sub))
	if err != nil && !os.IsNotExist(err) {
		in.t.Error(err)
	}
	for _, f := range all {
		names = append(names, f.Name())
	}
	return names
}

// expect checks that a user has n whole messages and nothing in tmp/.
func (in *injector) expect(what string, user, n int) {
	in.t.Helper()
	in.expectMessages(what, user, n)
	if litter := in.files(user, "tmp"); len(litter) > 0 {
		in.t.Errorf("%s: litter in tmp/ of %s: %v", what, userName(user), litter)
	}
}

func (in *injector) expectMessages(what string, user, n int) {
	in.t.Helper()
	names := in.files(user, "new")
	if len(names) != n {
		in.t.Errorf("%s: %s has %d messages, want %d", what, userName(user), len(names), n)
	}
	for _, name := range names {
		if _, problem := checkFile(filepath.Join(in.disk.below, userName(user), "Maildir", "new", name), user); problem != "" {
			in.t.Errorf("%s: %s: %s", what, name, problem)
		}
	}
}

// The reply to each errno; those that are not here get 451.
var replies = map[syscall.Errno]string{
	syscall.ENOSPC: "452 4.3.1 ",
	syscall.EDQUOT: "452 4.2.2 ",
	syscall.EIO:    "451 4.3.0 ",
	syscall.EROFS:  "451 4.3.0 ",
	syscall.ESTALE: "451 4.3.0 ",
}

// Each operation that a delivery needs fails once for each errno, at each of its
// calls, in the mailbox of the middle one of three recipients. He gets the reply
// of the table and nothing else, the others their message; and the next message
// is everybody's.
func TestEachCallFails(t *testing.T) {
	in := newInjector(t)
	in.deliver(0) // this file system has no unnamed files, and lmtpd learns it here
	in.disk.set(t, Rule{})
	in.deliver(1, 2, 3)
	var calls []Call
	in.disk.call(t, "Calls", userName(2), &calls)
	in.user = 4
	cases, harmless := 0, map[string]int{}
	for errno, want := range replies {
		if points(t) == 0 && errno != syscall.ENOSPC {
			continue // the short part
		}
		for _, c := range calls {
			for _, after := range []bool{false, true} {
				if after && c.Op != "rename" && c.Op != "fsync" && c.Op != "fsyncdir" && c.Op != "mkdir" {
					continue // a read that fails has done nothing
				}
				a, b, d := in.user, in.user+1, in.user+2
				in.user += 3
				what := fmt.Sprintf("%v at %s %d, after it %v", errno, c.Op, c.N, after)
				in.disk.set(t, Rule{Under: userName(b), Op: c.Op, N: c.N, Errno: errno, After: after})
				got := in.deliver(a, b, d)
				var hit bool
				in.disk.call(t, "Hit", struct{}{}, &hit)
				in.disk.set(t, Rule{})
				cases++
				if !hit {
					t.Errorf("%s: it was never called", what)
				}
				for i, user := range []int{a, d} {
					if r := got[2*i]; !strings.HasPrefix(r, "250 ") {
						t.Errorf("%s: the neighbour got %s", what, r)
					}
					in.expect(what+", neighbour", user, 1)
				}
				served := 0
				switch {
				case strings.HasPrefix(got[1], "250 "):
					served = 1
					if errno != syscall.ESTALE { // the kernel tries that again by itself
						harmless[c.Op]++
					}
				case !strings.HasPrefix(got[1], want):
					t.Errorf("%s: %s, want %s", what, got[1], want)
				}
				expect := in.expect
				if errno == syscall.ESTALE {
					// The kernel opens once more what it has just made, and says that
					// it exists: what it made the first time stays in tmp/.
					expect = in.expectMessages
				}
				expect(what, b, served)
				if r := in.deliver(b)[0]; !strings.HasPrefix(r, "250 ") {
					t.Errorf("%s: the next message: %s", what, r)
				}
				expect(what+", the next", b, served+1)
			}
		}
	}
	for op := range harmless {
		switch op {
		case "getattr", "lookup", "flush": // attributes are asked for more often than needed
		case "mkdir", "rename": // it was done, and looked at
		default:
			t.Errorf("a delivery was acknowledged although %s failed", op)
		}
	}
	t.Logf("%d faults at %d calls; acknowledged all the same: %v", cases, len(calls), harmless)
}

// A write that does less than it was asked for is gone on with.
func TestShortWrite(t *testing.T) {
	in := newInjector(t)
	in.deliver(0)
	in.disk.set(t, Rule{Under: userName(1), Op: "write", Short: true})
	if r := in.deliver(1)[0]; !strings.HasPrefix(r, "250 ") {
		t.Error(r)
	}
	var calls []Call
	in.disk.call(t, "Calls", userName(1), &calls)
	writes := 0
	for _, c := range calls {
		if c.Op == "write" {
			writes++
		}
	}
	if writes < 2 {
		t.Errorf("%d writes: nothing was short", writes)
	}
	in.expect("short write", 1, 1)
}

// A mailbox whose disk does not answer holds up neither the reply before it nor
// the delivery after it.
func TestHangingCall(t *testing.T) {
	in := newInjector(t)
	in.deliver(0)
	user := 1
	// Not rename: the kernel lets one rename between directories at a time go on in
	// a file system, so that one that hangs holds up all.
	for _, op := range []string{"opendir", "create", "write", "fsync", "fsyncdir"} {
		a, b, d := user, user+1, user+2
		user += 3
		in.deliver(a, b, d)
		in.disk.set(t, Rule{Under: userName(b), Op: op, Hang: true})
		in.message++
		first, done := make(chan string, 3), make(chan error, 1)
		go func() {
			done <- in.client.send(in.message, 3000, []int{a, b, d}, func(_ int, r string) { first <- r })
		}()
		if r := <-first; !strings.HasPrefix(r, "250 ") { // while b hangs
			t.Errorf("%s hangs: the first reply is %s", op, r)
		}
		in.disk.call(t, "Await", Call{Under: userName(d), Op: "fsyncdir"}, &struct{}{})
		if n := len(in.files(d, "new")); n != 2 {
			t.Errorf("%s hangs: the recipient after it has %d messages, want 2", op, n)
		}
		in.disk.call(t, "Release", struct{}{}, &struct{}{})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if r := <-first; !strings.HasPrefix(r, "250 ") {
				t.Errorf("%s hung: %s", op, r)
			}
		}
		for _, u := range []int{a, b, d} {
			in.expect(op+" hung", u, 2)
		}
	}
}
