package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func wantSizes(t *testing.T, box, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(readText(t, filepath.Join(box, sizeFile))) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	if got := strings.Join(lines, "|"); got != want {
		t.Errorf("maildirsize is %q, want %q", got, want)
	}
}

// TestQuota: counted, checked, noted; a message that does not fit leaves nothing.
func TestQuota(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100, Messages: 5}}
	if r := delivered(t, w, target, strings.Repeat("x", 40)); r.Usage != (Usage{40, 1}) {
		t.Errorf("%+v", r)
	}
	wantSizes(t, box, "100S,5C|0 0|40 1")
	if r := delivered(t, w, target, strings.Repeat("x", 60)); r.Usage != (Usage{100, 2}) {
		t.Errorf("%+v", r)
	}
	wantSizes(t, box, "100S,5C|0 0|40 1|60 1")
	r := deliver(t, w, target, "x")
	e := wantError(t, r, ErrQuota, "100 octets of 100, 2 messages of 5")
	var q *QuotaError
	if !errors.As(e, &q) || q.Usage != (Usage{100, 2}) || q.Limit.Octets != 100 || time.Since(q.Since) > time.Hour || r.Usage != q.Usage {
		t.Errorf("%+v", q)
	}
	wantSizes(t, box, "100S,5C|100 2") // it was counted again before anybody was refused
	if n := len(entries(t, filepath.Join(box, "new"))); n != 2 {
		t.Errorf("%d messages", n)
	}
	if left := entries(t, filepath.Join(box, "tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// Since when mail is refused stays known until there is room.
	long := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(box, overFile), long, long); err != nil {
		t.Fatal(err)
	}
	if !errors.As(deliver(t, w, target, "x").Err, &q) || !q.Since.Equal(long) {
		t.Errorf("since %v", q.Since)
	}
	wantError(t, deliver(t, w, target, strings.Repeat("x", 101)), ErrQuotaSize)
	for _, name := range entries(t, filepath.Join(box, "new"))[:1] {
		if err := os.Remove(filepath.Join(box, "new", name)); err != nil {
			t.Fatal(err)
		}
	}
	// A reader that does not keep maildirsize has made room; for a quarter of an hour
	// that is not looked at.
	wantError(t, deliver(t, w, target, strings.Repeat("x", 40)), ErrQuota)
	now := time.Now().Add(sizeStale)
	w.Clock = func() time.Time { return now }
	delivered(t, w, target, strings.Repeat("x", 40))
	if _, err := os.Stat(filepath.Join(box, overFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still over quota: %v", err)
	}
}

func TestQuotaLimits(t *testing.T) {
	for _, test := range []struct {
		quota Quota
		usage Usage
		size  int64
		over  bool
	}{
		{Quota{}, Usage{1 << 40, 1 << 40}, 1, false},
		{Quota{Octets: 100}, Usage{60, 9}, 40, false},
		{Quota{Octets: 100}, Usage{60, 9}, 41, true},
		{Quota{Octets: 100}, Usage{60, 9}, 1 << 62, true},
		{Quota{Octets: 100, Grace: true}, Usage{99, 9}, 1 << 62, false},
		{Quota{Octets: 100, Grace: true}, Usage{100, 9}, 1, true},
		{Quota{Messages: 10}, Usage{60, 9}, 41, false},
		{Quota{Messages: 10}, Usage{60, 10}, 1, true},
		{Quota{Messages: 10, Grace: true}, Usage{60, 10}, 1, true},
	} {
		if got := test.quota.over(test.usage, test.size); got != test.over {
			t.Errorf("%+v, %+v, %d: %v", test.quota, test.usage, test.size, got)
		}
	}
	for _, test := range []struct {
		quota Quota
		want  string
	}{{Quota{}, "0S"}, {Quota{Octets: 5}, "5S"}, {Quota{Messages: 5}, "5C"}, {Quota{Octets: 1, Messages: 2}, "1S,2C"}} {
		if got := test.quota.definition(); got != test.want {
			t.Errorf("%+v: %q", test.quota, got)
		}
	}
}

// A file that cannot be believed is made anew from what is there, in all folders.
func TestQuotaRecount(t *testing.T) {
	for name, text := range map[string]string{
		"missing":              "",
		"other limits":         "5S\n0 0\n",
		"no counts":            "1000S\n",
		"garbage":              "1000S\n1 x\n",
		"three numbers":        "1000S\n1 1 1\n",
		"line without end":     "1000S\n1 1",
		"negative":             "1000S\n-5 1\n",
		"too long":             "1000S\n" + strings.Repeat("0 0          \n", 400),
		"other kind":           "1000X\n0 0\n",
		"empty kind":           "1000S,\n0 0\n",
		"overflow":             "1000S\n9223372036854775807 1\n1 1\n",
		"over, several lines":  "1000S\n900 1\n900 1\n",
		"right, needs no work": "1000S\n110 4\n",
	} {
		root := memoryDir(t)
		box := filepath.Join(root, "Maildir")
		w := &Writer{Hostname: "mx"}
		plain := Target{Root: root, Path: "Maildir"}
		delivered(t, w, plain, "0123456789")
		for _, f := range []string{".a", ".Trash"} {
			plain.Folder, plain.MakeFolder, plain.Flags = f, true, "T"
			delivered(t, w, plain, "0123456789")
		}
		// Names without a size, of other software.
		if err := os.WriteFile(filepath.Join(box, "cur", "1.x:2,S"), make([]byte, 80), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(box, "cur", ".nfs1"), make([]byte, 80), 0o600); err != nil {
			t.Fatal(err)
		}
		if text != "" {
			if err := os.WriteFile(filepath.Join(box, sizeFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 1000}}
		if r := delivered(t, w, target, "0123456789"); r.Usage != (Usage{120, 5}) || r.Warning != nil {
			t.Errorf("%s: %+v", name, r)
		}
		wantSizes(t, box, "1000S|110 4|10 1")
	}
}

// Folders that do not count, and limits that somebody else has set.
func TestQuotaOfOthers(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	w := &Writer{Hostname: "mx"}
	delivered(t, w, Target{Root: root, Path: "Maildir", Folder: ".Trash", MakeFolder: true}, strings.Repeat("x", 500))
	delivered(t, w, Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100, Ignore: []string{".Trash"}}}, "0123456789")
	wantSizes(t, box, "100S|0 0|10 1")
	ours := Target{Root: root, Path: "Maildir", Quota: &Quota{}}
	delivered(t, w, ours, "0123456789")
	wantSizes(t, box, "100S|0 0|10 1|10 1")
	wantError(t, deliver(t, w, ours, strings.Repeat("x", 101)), ErrQuotaSize)
	if err := os.Remove(filepath.Join(box, sizeFile)); err != nil {
		t.Fatal(err)
	}
	delivered(t, w, ours, strings.Repeat("x", 101))
	if got := readText(t, filepath.Join(box, sizeFile)); got != "" {
		t.Errorf("made %q", got)
	}
}

// What goes wrong with the file does not hold the mail up.
func TestQuotaTrouble(t *testing.T) {
	for name, test := range map[string]struct {
		op    string
		nth   int
		path  string
		cause error
	}{
		"writing the line": {OpQuota, 1, sizeFile, syscall.EIO},
		"reading it":       {OpOpen, 1, sizeFile, syscall.EIO},
		"renaming":         {OpRename, 1, sizeFile, syscall.EIO},
	} {
		root := memoryDir(t)
		w := &Writer{Hostname: "mx"}
		if name == "reading it" {
			delivered(t, w, Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100}}, "x")
		}
		n := 0
		w.Before = func(op, path string) error {
			if op == test.op && filepath.Base(path) == test.path {
				if n++; n == test.nth {
					return test.cause
				}
			}
			return nil
		}
		r := delivered(t, w, Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100}}, "x")
		if !errors.Is(r.Warning, test.cause) {
			t.Errorf("%s: %+v", name, r)
		}
		if left := entries(t, filepath.Join(root, "Maildir/tmp")); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// TestQuotaInOrder: of copies that come at the same moment each knows what the mailbox
// held with those before it, so that one alone passes a threshold.
func TestQuotaInOrder(t *testing.T) {
	for name, first := range map[string]string{"counted": "", "read": "1000S\n0 0\n"} {
		root := memoryDir(t)
		box := filepath.Join(root, "Maildir")
		target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 1000}}
		delivered(t, &Writer{Hostname: "mx"}, Target{Root: root, Path: "Maildir"}, "")
		if first != "" {
			if err := os.WriteFile(filepath.Join(box, sizeFile), []byte(first), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var between Result
		w := &Writer{Hostname: "mx"}
		w.Before = func(op, _ string) error {
			if op == OpSync && between.Size == 0 { // after the check, before the line
				between.Size = 1
				between = deliver(t, &Writer{Hostname: "mx"}, target, "0123456789")
			}
			return nil
		}
		r := delivered(t, w, target, "01234567890123456789")
		if between.Err != nil || between.Usage.Octets != 10 || r.Usage.Octets != 30 || r.Usage.Messages != between.Usage.Messages+1 {
			t.Errorf("%s: %+v and then %+v", name, between.Usage, r.Usage)
		}
	}
	// Many at once, through files that are made anew: the sums differ.
	root := memoryDir(t)
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 1 << 40}}
	w := &Writer{Hostname: "mx"}
	delivered(t, w, target, "x")
	var mu sync.Mutex
	sums := map[int64]int{}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				r := deliver(t, w, target, "x")
				mu.Lock()
				sums[r.Usage.Octets]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(sums) != 160 || sums[161] != 1 {
		t.Errorf("%d sums of 160: %v", len(sums), sums)
	}
}

// What is exempt is counted, and never refused; the mailbox stays full.
func TestQuotaExempt(t *testing.T) {
	root := memoryDir(t)
	box := filepath.Join(root, "Maildir")
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 20}}
	delivered(t, w, target, "01234567890123456789")
	wantError(t, deliver(t, w, target, "x"), ErrQuota)
	exempt := target
	exempt.Quota = &Quota{Octets: 20, Exempt: true}
	if r := delivered(t, w, exempt, strings.Repeat("x", 50)); r.Usage != (Usage{70, 2}) {
		t.Errorf("%+v", r)
	}
	wantSizes(t, box, "20S|20 1|50 1")
	if _, err := os.Stat(filepath.Join(box, overFile)); err != nil {
		t.Error(err)
	}
	wantError(t, deliver(t, w, target, "x"), ErrQuota, "70 octets of 20")
}

func TestCheckQuota(t *testing.T) {
	root := memoryDir(t)
	w := &Writer{Hostname: "mx"}
	target := Target{Root: root, Path: "Maildir", Quota: &Quota{Octets: 100}}
	check := func(size int64) error {
		_, err := w.CheckQuota(context.Background(), target, size)
		return err
	}
	if err := check(101); !errors.Is(err, ErrQuotaSize) {
		t.Error(err)
	}
	if err := check(100); err != nil || len(entries(t, root)) != 0 {
		t.Errorf("no mailbox: %v, %v", err, entries(t, root))
	}
	delivered(t, w, target, strings.Repeat("x", 90))
	if err := check(10); err != nil {
		t.Error(err)
	}
	if err := check(11); !errors.Is(err, ErrQuota) {
		t.Error(err)
	}
	if err := check(101); !errors.Is(err, ErrQuotaSize) {
		t.Error(err)
	}
	if u, err := w.CheckQuota(context.Background(), target, 0); err != nil || u != (Usage{90, 1}) {
		t.Errorf("%+v, %v", u, err)
	}
	target.Root = root + "/none"
	if err := check(1); !errors.Is(err, ErrRoot) {
		t.Error(err)
	}
}

func FuzzSizes(f *testing.F) {
	f.Add([]byte("100S,5C\n0 0\n40 1\n"))
	f.Add([]byte("5C\n-1 -1\n"))
	f.Add([]byte(fmt.Sprintf("0S\n%d 1\n1 1\n", int64(1)<<62)))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, ok := parseSizes(text)
		if ok && (s.usage.Octets < 0 || s.usage.Messages < 0 || s.limit.Octets < 0 || s.limit.Messages < 0 || s.lines < 1) {
			t.Errorf("%q: %+v", text, s)
		}
	})
}

// Where there is no limit, none is named.
func TestQuotaErrorText(t *testing.T) {
	for _, c := range []struct {
		limit Quota
		want  string
	}{
		{Quota{Octets: 100}, "mailbox is over quota: 90 octets of 100, 2 messages"},
		{Quota{Messages: 2}, "mailbox is over quota: 90 octets, 2 messages of 2"},
		{Quota{Octets: 100, Messages: 5}, "mailbox is over quota: 90 octets of 100, 2 messages of 5"},
	} {
		e := &QuotaError{Cause: ErrQuota, Usage: Usage{Octets: 90, Messages: 2}, Limit: c.limit}
		if got := e.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
