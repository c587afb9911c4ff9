package test

import (
	"bufio"
	"context"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait in this package. No test depends on its value:
// it only keeps a broken program from hanging the run.
const patience = 20 * time.Second

// lines is what a program has printed so far; a test can wait for a line.
type lines struct {
	mu      sync.Mutex
	all     []string
	closed  bool
	changed chan struct{} // closed and renewed with every change
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

// copyFrom appends the lines of r until it ends.
func (l *lines) copyFrom(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		l.mu.Lock()
		if line != "" {
			l.all = append(l.all, strings.TrimSuffix(line, "\n"))
		}
		l.closed = err != nil
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// count is the number of lines so far: where await may start to look.
func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// find returns the submatches of each line that matches, oldest first.
func (l *lines) find(pattern string) [][]string {
	re := regexp.MustCompile(pattern)
	l.mu.Lock()
	defer l.mu.Unlock()
	var found [][]string
	for _, line := range l.all {
		if m := re.FindStringSubmatch(line); m != nil {
			found = append(found, m)
		}
	}
	return found
}

// await waits for a line that matches and returns its submatches.
func (l *lines) await(t *testing.T, pattern string) []string {
	t.Helper()
	return l.awaitFrom(t, 0, pattern)
}

// awaitFrom looks at the lines from number from on only.
func (l *lines) awaitFrom(t *testing.T, from int, pattern string) []string {
	t.Helper()
	m, _ := l.search(t, from, pattern)
	return m
}

// search is awaitFrom, and says where the next search may begin.
func (l *lines) search(t *testing.T, from int, pattern string) (match []string, next int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	re := regexp.MustCompile(pattern)
	for i := from; ; {
		l.mu.Lock()
		fresh, closed, changed := l.all[i:], l.closed, l.changed
		l.mu.Unlock()
		for _, line := range fresh {
			i++
			if m := re.FindStringSubmatch(line); m != nil {
				return m, i
			}
		}
		if closed {
			t.Fatalf("program ended without a line like %q", pattern)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("no line like %q", pattern)
		}
	}
}

// awaitCount waits until there are n lines, or enough is closed.
func (l *lines) awaitCount(t *testing.T, n int, enough <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		l.mu.Lock()
		count, changed := len(l.all), l.changed
		l.mu.Unlock()
		if count >= n {
			return
		}
		select {
		case <-changed:
		case <-enough:
			return
		case <-ctx.Done():
			t.Fatalf("%d lines, want %d", count, n)
		}
	}
}
