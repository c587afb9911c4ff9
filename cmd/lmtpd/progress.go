package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// progressBar shows on a terminal how far work has come. A nil one shows nothing. It
// belongs to one goroutine.
type progressBar struct {
	out    io.Writer
	what   string // is counted: "users"
	total  int
	clock  func() time.Time
	begin  time.Time
	drawn  time.Time
	shown  bool
	failed int
}

const (
	barWidth    = 30
	barInterval = 100 * time.Millisecond
)

// newProgressBar returns nil where out is no terminal.
func newProgressBar(out io.Writer, what string, total int) *progressBar {
	if !isTerminal(out) {
		return nil
	}
	return &progressBar{out: out, what: what, total: total, clock: time.Now, begin: time.Now()}
}

// set shows that done of the total are over.
func (b *progressBar) set(done, failed int) {
	if b == nil {
		return
	}
	now := b.clock()
	b.failed = failed
	if done < b.total && now.Sub(b.drawn) < barInterval {
		return
	}
	b.drawn, b.shown = now, true
	fmt.Fprint(b.out, "\r", b.line(done, now), "\x1b[K")
}

func (b *progressBar) line(done int, now time.Time) string {
	full, percent := barWidth, 100
	if b.total > 0 {
		full, percent = barWidth*done/b.total, 100*done/b.total
	}
	s := fmt.Sprintf("[%s%s] %3d%%  %d of %d %s", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), percent, done, b.total, b.what)
	if b.failed > 0 {
		s += fmt.Sprintf(", %d failed", b.failed)
	}
	if spent := now.Sub(b.begin); done > 0 && done < b.total && spent > time.Second {
		left := time.Duration(float64(spent) / float64(done) * float64(b.total-done))
		s += fmt.Sprintf(", %v left", left.Round(time.Second))
	}
	return s
}

// clear takes the bar from the screen, before a line is printed there or at the end.
func (b *progressBar) clear() {
	if b != nil && b.shown {
		fmt.Fprint(b.out, "\r\x1b[K")
		b.shown, b.drawn = false, time.Time{}
	}
}
