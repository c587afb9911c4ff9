package maildir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// benchDir is where the benchmarks write: a directory on a journaled file
// system, named by the environment, or else wherever temporary files go.
func benchDir(b *testing.B) string {
	base := os.Getenv("MAILDIR_BENCH_DIR")
	if base == "" {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp(base, "maildir-bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// plain is the strict scheme by itself, as a C program would do it: create in
// tmp/, write, sync, rename to new/, sync new/. What the file system allows.
func plain(box, name string, header, body []byte) error {
	tmp, dst := filepath.Join(box, "tmp", name), filepath.Join(box, "new", name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(header[:len(header):len(header)], body...)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, dst); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Join(box, "new"))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// BenchmarkDeliver writes the same messages by the plain scheme and by Deliver
// in turns, into the same mailboxes, and reports what the plain scheme needs
// divided by what Deliver needs: above 1, Deliver is faster.
func BenchmarkDeliver(b *testing.B) {
	const boxes = 100
	for _, c := range []struct {
		name       string
		sessions   int // calls at a time
		recipients int // targets of each call
		size       int
		file       bool
		before     func(op, path string) error
	}{
		{name: "1x1_4KiB", sessions: 1, recipients: 1, size: 4 << 10},
		{name: "1x1_4KiB_tmp", sessions: 1, recipients: 1, size: 4 << 10, before: classicOnly},
		{name: "16x1_4KiB", sessions: 16, recipients: 1, size: 4 << 10},
		{name: "16x1_4KiB_tmp", sessions: 16, recipients: 1, size: 4 << 10, before: classicOnly},
		{name: "64x1_4KiB", sessions: 64, recipients: 1, size: 4 << 10},
		{name: "1x50_4KiB", sessions: 1, recipients: 50, size: 4 << 10},
		{name: "4x1_10MiB", sessions: 4, recipients: 1, size: 10 << 20},
		{name: "4x1_10MiB_file", sessions: 4, recipients: 1, size: 10 << 20, file: true},
	} {
		b.Run(c.name, func(b *testing.B) {
			root := benchDir(b)
			data := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\n"), c.size/63)
			body := Body{Data: data, Size: int64(len(data)), Lines: lines(data)}
			if c.file {
				body = spooled(b, root, string(data))
			}
			header := []byte("Return-Path: <sender@example.org>\nDelivered-To: bob@example.org\n")
			w := &Writer{Before: c.before}
			box := func(i int) string { return fmt.Sprintf("box%d", i%boxes) }
			for i := range boxes {
				delivered(b, w, Target{Root: root, Path: box(i)}, "x\n")
			}
			each := func(f func(session int)) time.Duration {
				begin := time.Now()
				var wg sync.WaitGroup
				for s := range c.sessions {
					wg.Go(func() { f(s) })
				}
				wg.Wait()
				return time.Since(begin)
			}
			var own, strict time.Duration
			round := 0
			for b.Loop() {
				round++
				strict += each(func(s int) {
					for r := range c.recipients {
						n := round*c.sessions + s + r
						name := fmt.Sprintf("plain.%d.%d.%d", round, s, r)
						if err := plain(filepath.Join(root, box(n)), name, header, data); err != nil {
							b.Error(err)
						}
					}
				})
				own += each(func(s int) {
					targets := make([]Target, c.recipients)
					for r := range targets {
						targets[r] = Target{Root: root, Path: box(round*c.sessions + s + r), Header: header}
					}
					w.Deliver(b.Context(), body, targets, func(_ int, r Result) {
						if r.Err != nil {
							b.Error(r.Err)
						}
					})
				})
				if c.size > 1<<20 && round%20 == 0 { // keep the disk from filling
					b.StopTimer()
					for i := range boxes {
						for _, f := range entries(b, filepath.Join(root, box(i), "new")) {
							os.Remove(filepath.Join(root, box(i), "new", f))
						}
					}
					b.StartTimer()
				}
			}
			copies := float64(round * c.sessions * c.recipients)
			b.ReportMetric(copies/own.Seconds(), "copies/s")
			b.ReportMetric(copies/strict.Seconds(), "plain/s")
			b.ReportMetric(float64(strict)/float64(own), "ratio")
		})
	}
}

// BenchmarkOverhead is what a copy costs apart from the disk.
func BenchmarkOverhead(b *testing.B) {
	dir := memoryDir(b)
	w := &Writer{Durability: None}
	tg := Target{Root: dir, Path: "bob", Header: []byte("Return-Path: <>\n")}
	body := memory("x\n")
	b.ReportAllocs()
	for b.Loop() {
		w.Deliver(b.Context(), body, []Target{tg}, func(_ int, r Result) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
			os.Remove(r.File)
		})
	}
}
