package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// fakePeer is a client that goes away when the test says so.
type fakePeer struct{ gone atomic.Bool }

func (p *fakePeer) Gone() bool { return p.gone.Load() }

func openRedelivery(t testing.TB, dir string, opts RedeliveryOptions) *Redelivery {
	t.Helper()
	r, err := OpenRedelivery(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// killed closes the file as the kernel does for a process that is killed, and
// opens it again.
func killed(t testing.TB, r *Redelivery) *Redelivery {
	t.Helper()
	r.log.file.Close()
	return openRedelivery(t, filepath.Dir(r.log.path), r.opts)
}

func keyOf(s string) redeliveryKey {
	return newRedeliveryKey(sha256.Sum256([]byte(s)), "ann@example.org", userdb.Address{Local: "bob"})
}

// deliverOne is a transaction of one copy that is delivered.
func (r *Redelivery) deliverOne(key redeliveryKey, p peer) (*claim, verdict) {
	c := r.claim(p)
	v := c.begin(key)
	c.commit()
	if v.wait == nil && !v.again {
		c.written(v.attempt, v.seek, nil)
	}
	return c, v
}

func (v verdict) String() string {
	return fmt.Sprintf("again %v, seek %v, wait %v", v.again, v.seek, v.wait != nil)
}

const (
	fresh     = "again false, seek false, wait false"
	wasBefore = "again true, seek false, wait false"
	uncertain = "again false, seek true, wait false"
	mustWait  = "again false, seek false, wait true"
)

func wantVerdict(t *testing.T, what string, v verdict, want string) {
	t.Helper()
	if v.String() != want {
		t.Errorf("%s: %v, want %s", what, v, want)
	}
}

func TestRedeliveryDecisions(t *testing.T) {
	r := openRedelivery(t, t.TempDir(), RedeliveryOptions{})
	a, b := keyOf("a"), keyOf("b")

	c, v := r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "first", v, fresh)
	c.end(true)
	if r.Len() != 0 {
		t.Errorf("%d remembered after the replies were seen", r.Len())
	}
	c, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "sent again on purpose", v, fresh)
	c.end(false)

	_, v = r.deliverOne(b, &fakePeer{})
	wantVerdict(t, "other content", v, fresh)
	c, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "replies were lost", v, wasBefore)
	c.end(false)
	c, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "lost once more", v, wasBefore)
	c.end(true)
	c, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "once they were seen", v, fresh)

	// Side by side it is on purpose, unless the other client is gone.
	_, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "side by side", v, fresh)
	c.peer.(*fakePeer).gone.Store(true)
	_, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "the other client is gone", v, mustWait)
	c.end(false)
	<-v.wait
	_, v = r.deliverOne(a, &fakePeer{})
	wantVerdict(t, "the other transaction is over", v, wasBefore)
}

func TestRedeliveryFailures(t *testing.T) {
	at := func(op string) error { return &maildir.Error{Op: op, Err: syscall.EIO} }
	for _, test := range []struct {
		err  error
		seen bool
		want string
	}{
		{at(maildir.OpWrite), false, fresh},
		{at(maildir.OpWrite), true, fresh},
		{at(maildir.OpWriteBack), true, fresh},
		{at(maildir.OpLink), false, uncertain},
		{at(maildir.OpSyncNamed), true, uncertain},
		{at(maildir.OpSyncDir), true, uncertain}, // the client comes again because of it
		{at("something new"), true, uncertain},
		{errors.New("writer process has died"), true, uncertain},
	} {
		r := openRedelivery(t, t.TempDir(), RedeliveryOptions{})
		c := r.claim(&fakePeer{})
		v := c.begin(keyOf("a"))
		c.commit()
		c.written(v.attempt, false, test.err)
		c.end(test.seen)
		for range 2 { // a second attempt that fails is no wiser
			c, again := r.claim(&fakePeer{}), verdict{}
			again = c.begin(keyOf("a"))
			wantVerdict(t, test.err.Error(), again, test.want)
			if again.seek {
				if again.attempt.token != v.attempt.token {
					t.Error("it would look for another file")
				}
				c.written(again.attempt, true, at(maildir.OpOpen))
			} else {
				c.written(again.attempt, false, at(maildir.OpOpen))
			}
			c.end(true)
		}
	}
}

// What is remembered survives kill -9, in the state that it had.
func TestRedeliveryKilled(t *testing.T) {
	r := openRedelivery(t, t.TempDir(), RedeliveryOptions{})
	c := r.claim(&fakePeer{})
	begun, done := c.begin(keyOf("begun")), c.begin(keyOf("done"))
	notCommitted := r.claim(&fakePeer{})
	notCommitted.begin(keyOf("not begun"))
	c.commit()
	c.written(done.attempt, false, nil)
	seen, _ := r.deliverOne(keyOf("seen"), &fakePeer{})
	seen.end(true)

	r = killed(t, r)
	if r.Len() != 2 {
		t.Errorf("%d remembered", r.Len())
	}
	c = r.claim(&fakePeer{})
	v := c.begin(keyOf("begun"))
	wantVerdict(t, "begun", v, uncertain)
	if v.attempt.token != begun.attempt.token {
		t.Error("another token")
	}
	wantVerdict(t, "done", c.begin(keyOf("done")), wasBefore)
	wantVerdict(t, "seen", c.begin(keyOf("seen")), fresh)
	wantVerdict(t, "not begun", c.begin(keyOf("not begun")), fresh)
	c.commit()
	c.written(v.attempt, true, nil)

	r = killed(t, killed(t, r)) // opening changes nothing
	c = r.claim(&fakePeer{})
	wantVerdict(t, "begun, found", c.begin(keyOf("begun")), wasBefore)
	wantVerdict(t, "seen, begun again", c.begin(keyOf("seen")), uncertain)
}

func TestRedeliveryBounds(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := openRedelivery(t, t.TempDir(), RedeliveryOptions{Entries: 10, Age: time.Hour, Clock: func() time.Time { return now }})
	for i := range 25 {
		c, _ := r.deliverOne(keyOf(fmt.Sprint(i)), &fakePeer{})
		if i != 20 {
			c.end(false)
		} else {
			defer c.end(true) // still going on when it is pushed out below
		}
	}
	if r.Len() != 10 {
		t.Errorf("%d remembered", r.Len())
	}
	_, v := r.deliverOne(keyOf("14"), &fakePeer{})
	wantVerdict(t, "pushed out", v, fresh)
	_, v = r.deliverOne(keyOf("24"), &fakePeer{})
	wantVerdict(t, "kept", v, wasBefore)
	now = now.Add(time.Hour + time.Second)
	_, v = r.deliverOne(keyOf("24"), &fakePeer{})
	wantVerdict(t, "too old", v, fresh)
	if r.Len() != 1 {
		t.Errorf("%d remembered", r.Len())
	}
	now = now.Add(2 * time.Hour)
	if r = killed(t, r); r.Len() != 0 {
		t.Errorf("%d remembered after a restart", r.Len())
	}
}

// The file is replaced now and then, and does not grow for ever.
func TestRedeliveryCompaction(t *testing.T) {
	dir := t.TempDir()
	r := openRedelivery(t, dir, RedeliveryOptions{})
	kept, _ := r.deliverOne(keyOf("kept"), &fakePeer{})
	kept.end(false)
	largest := int64(0)
	for i := range 3 * minimumLimit / recordSize / 3 {
		c, _ := r.deliverOne(keyOf(fmt.Sprint(i)), &fakePeer{})
		c.end(true)
		largest = max(largest, r.log.size)
	}
	if info, err := os.Stat(filepath.Join(dir, "redelivery")); err != nil || info.Size() != r.log.size || r.log.size > minimumLimit || largest > minimumLimit+3*recordSize {
		t.Errorf("%v, %v, size %d, largest %d", info, err, r.log.size, largest)
	}
	if names := stateEntries(t, dir); len(names) != 1 {
		t.Errorf("files: %v", names)
	}
	r = killed(t, r)
	_, v := r.deliverOne(keyOf("kept"), &fakePeer{})
	wantVerdict(t, "kept", v, wasBefore)
}

// A file that is damaged costs what is damaged, and nothing else.
func TestRedeliveryDamage(t *testing.T) {
	for name, damage := range map[string]func(data []byte) []byte{
		"torn":             func(d []byte) []byte { return d[:len(d)-7] },
		"a record of dust": func(d []byte) []byte { d[recordSize+9] ^= 1; return d },
		"zeros behind":     func(d []byte) []byte { return append(d, make([]byte, 100)...) },
		"unknown kind": func(d []byte) []byte {
			a := attempt{key: keyOf("x")}
			return a.append(d, 9)
		},
		"empty":        func([]byte) []byte { return nil },
		"other format": func(d []byte) []byte { return []byte("something else that is quite long, longer than a record") },
	} {
		dir := t.TempDir()
		r := openRedelivery(t, dir, RedeliveryOptions{})
		for _, k := range []string{"1", "2", "3"} {
			c, _ := r.deliverOne(keyOf(k), &fakePeer{})
			c.end(false)
		}
		r.Close()
		path := filepath.Join(dir, "redelivery")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(data), 0o600); err != nil {
			t.Fatal(err)
		}
		r = openRedelivery(t, dir, RedeliveryOptions{})
		want := 3
		if name == "empty" || name == "other format" {
			want = 0
		}
		if r.Len() != want { // a damaged record leaves the other one of its copy
			t.Errorf("%s: %d remembered, want %d", name, r.Len(), want)
		}
		c, _ := r.deliverOne(keyOf("new"), &fakePeer{})
		c.end(false)
		if r = killed(t, r); r.Len() != want+1 {
			t.Errorf("%s: %d remembered after another restart", name, r.Len())
		}
	}
}

// After a power cut, copies that were reported before they were on disk prove
// nothing.
func TestRedeliveryReboot(t *testing.T) {
	for _, weak := range []bool{false, true} {
		dir := t.TempDir()
		r := openRedelivery(t, dir, RedeliveryOptions{Weak: weak})
		c, _ := r.deliverOne(keyOf("a"), &fakePeer{})
		c.end(false)
		if r = killed(t, r); r.Len() != 1 {
			t.Errorf("weak %v: %d remembered after a restart", weak, r.Len())
		}
		r.Close()
		path := filepath.Join(dir, "redelivery")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(recordMagic)] ^= 1 // another boot
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want := 1
		if weak {
			want = 0
		}
		if r = openRedelivery(t, dir, RedeliveryOptions{Weak: weak}); r.Len() != want {
			t.Errorf("weak %v: %d remembered after a power cut", weak, r.Len())
		}
	}
}

func TestRedeliveryInUse(t *testing.T) {
	dir := t.TempDir()
	r := openRedelivery(t, dir, RedeliveryOptions{})
	for range 2 {
		if _, err := OpenRedelivery(dir, RedeliveryOptions{}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v", err)
		}
		r.compact() // the new file is locked as well
	}
	r.Close()
	openRedelivery(t, dir, RedeliveryOptions{})
	if _, err := OpenRedelivery(filepath.Join(dir, "none"), RedeliveryOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(t.TempDir(), "redelivery")); err != nil {
		t.Fatal(err)
	}
}

// A full disk costs the memory across a restart, and no delivery.
func TestRedeliveryFull(t *testing.T) {
	dir := fullDirectory(t)
	if dir == "" {
		t.Skip("a full file system needs the right to mount one (root)")
	}
	var log lockedBuffer
	r := openRedelivery(t, dir, RedeliveryOptions{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for i := range 3000 {
		c, _ := r.deliverOne(keyOf(fmt.Sprint(i)), &fakePeer{})
		c.end(false)
	}
	_, v := r.deliverOne(keyOf("2999"), &fakePeer{})
	wantVerdict(t, "in memory", v, wasBefore)
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "no space left") {
		t.Errorf("%d lines in the log: %s", n, log.String())
	}
	if r = killed(t, r); r.Len() == 0 || r.Len() >= 3000 {
		t.Errorf("%d remembered", r.Len())
	}
}

// Sender, recipient and content make the key, each with its limits.
func TestRedeliveryKey(t *testing.T) {
	sum := sha256.Sum256([]byte("x"))
	addr := userdb.Address{Local: "bob", Detail: "d", Domain: "example.org"}
	seen := map[redeliveryKey]string{}
	for name, k := range map[string]redeliveryKey{
		"plain":   newRedeliveryKey(sum, "a", addr),
		"content": newRedeliveryKey(sha256.Sum256([]byte("y")), "a", addr),
		"from":    newRedeliveryKey(sum, "b", addr),
		"moved 1": newRedeliveryKey(sum, "ab", userdb.Address{Local: "ob", Detail: "d", Domain: "example.org"}),
		"moved 2": newRedeliveryKey(sum, "a", userdb.Address{Local: "bobd", Domain: "example.org"}),
		"moved 3": newRedeliveryKey(sum, "a", userdb.Address{Local: "bob", Domain: "dexample.org"}),
	} {
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s are one", name, other)
		}
		seen[k] = name
	}
	if first, again := newRedeliveryKey(sum, "a", addr), newRedeliveryKey(sum, "a", addr); first != again {
		t.Error("not the same twice")
	}
}

func FuzzRedeliveryLog(f *testing.F) {
	l := redeliveryLog{boot: bootID()}
	a := attempt{key: keyOf("a"), token: 7, at: 1 << 31}
	f.Add(a.append(a.append(l.header(), recordBegun), recordDone))
	f.Add(a.append(a.append(l.header(), recordForgotten), recordBegun)[:recordSize*2+5])
	f.Add(binary.LittleEndian.AppendUint64(nil, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := memoryDir(t)
		if err := os.WriteFile(filepath.Join(dir, "redelivery"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := OpenRedelivery(dir, RedeliveryOptions{Age: 1 << 62})
		if err != nil {
			t.Fatal(err)
		}
		n := r.Len()
		if n > len(data)/recordSize {
			t.Errorf("%d remembered of %d octets", n, len(data))
		}
		c, _ := r.deliverOne(keyOf("new"), &fakePeer{})
		c.end(false)
		r.log.file.Close()
		again, err := OpenRedelivery(dir, RedeliveryOptions{Age: 1 << 62})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if again.Len() != r.Len() {
			t.Errorf("%d remembered, and after a restart %d", r.Len(), again.Len())
		}
	})
}

// BenchmarkRedelivery is what a delivery of 4 KiB pays for being remembered.
func BenchmarkRedelivery(b *testing.B) {
	r := openRedelivery(b, b.TempDir(), RedeliveryOptions{})
	content := make([]byte, 4<<10)
	addr := userdb.Address{Local: "bob", Domain: "example.org"}
	b.ReportAllocs()
	for b.Loop() {
		binary.LittleEndian.PutUint64(content, uint64(b.N))
		c := r.claim(&fakePeer{})
		v, _ := c.ask(&copyOf{}, newRedeliveryKey(sha256.Sum256(content), "ann@example.org", addr))
		c.commit()
		c.written(v.attempt, v.seek, nil)
		c.end(true)
	}
}
