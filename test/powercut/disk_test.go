package powercut

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	pageSize   = 4096
	sectorSize = 512 // what a disk writes whole or not at all
)

type page [pageSize]byte

// Kinds of log entries.
type kind uint8

const (
	kindWrite kind = iota
	kindFlush      // finished
	kindMark       // a client has read a 250
)

type entry struct {
	kind kind
	off  int64  // of a write
	data []byte // of a write
	n    int    // flush: the entries before number n are on the medium; mark: what was acknowledged
}

// disk is a disk with a volatile write cache and a log. Its content is base with
// top laid over it.
type disk struct {
	latency time.Duration // of a flush

	mu        sync.Mutex
	base      []*page
	top       map[int64]*page
	log       []entry
	recording bool

	// Of the cuts so far, which must go forward.
	point   int // the last
	covered int // entries that a flush before the point covers, all in base
}

func newDisk(size int64, latency time.Duration) *disk {
	return &disk{base: make([]*page, size/pageSize), top: make(map[int64]*page), latency: latency}
}

func (d *disk) size() int64 { return int64(len(d.base)) * pageSize }

func (d *disk) read(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(p) > 0 && off < d.size() {
		n := min(len(p), int(pageSize-off%pageSize))
		pg := d.top[off/pageSize]
		if pg == nil {
			pg = d.base[off/pageSize]
		}
		if pg == nil {
			clear(p[:n])
		} else {
			copy(p[:n], pg[off%pageSize:])
		}
		p, off = p[n:], off+int64(n)
	}
}

func (d *disk) write(p []byte, off int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording {
		d.log = append(d.log, entry{kind: kindWrite, off: off, data: append([]byte(nil), p...)})
	}
	d.writeTop(p, off)
}

func (d *disk) writeTop(p []byte, off int64) {
	for len(p) > 0 && off < d.size() {
		n := min(len(p), int(pageSize-off%pageSize))
		pg := d.top[off/pageSize]
		if pg == nil {
			pg = new(page)
			if below := d.base[off/pageSize]; below != nil {
				*pg = *below
			}
			d.top[off/pageSize] = pg
		}
		copy(pg[off%pageSize:], p[:n])
		p, off = p[n:], off+int64(n)
	}
}

// flush covers the writes that were answered before it began, and counts from
// the moment it ends.
func (d *disk) flush() {
	d.mu.Lock()
	n, recording := len(d.log), d.recording
	d.mu.Unlock()
	if !recording {
		return
	}
	if d.latency > 0 {
		<-time.After(d.latency) // a disk takes its time, in which others come
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, entry{kind: kindFlush, n: n})
}

func (d *disk) mark(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording {
		d.log = append(d.log, entry{kind: kindMark, n: n})
	}
}

// begin takes the present content as the beginning of the log.
func (d *disk) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle()
	d.log, d.recording, d.point, d.covered = nil, true, 0, 0
}

// settle moves top into base.
func (d *disk) settle() {
	for i, pg := range d.top {
		d.base[i] = pg
	}
	d.top = make(map[int64]*page)
}

// end stops the log. What is written from now on is of no account.
func (d *disk) end() []entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recording = false
	return d.log
}

// Mode says what has become of writes that no flush covers.
type Mode int

const (
	Dropped Mode = iota // none is on the medium
	Some                // each with a certain chance
	Torn                // each sector of each with a certain chance
	Kept                // all are
	modes
)

func (m Mode) String() string { return [...]string{"dropped", "some", "torn", "kept"}[m] }

// cut makes the disk what it could be if power had failed just before entry
// number point. Points must not go back.
func (d *disk) cut(point int, mode Mode, seed uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording || point < d.point || point > len(d.log) {
		return fmt.Errorf("cut at %d of %d after one at %d", point, len(d.log), d.point)
	}
	covered := d.covered
	for _, e := range d.log[d.point:point] {
		if e.kind == kindFlush {
			covered = max(covered, e.n)
		}
	}
	d.top = make(map[int64]*page)
	for _, e := range d.log[d.covered:covered] {
		if e.kind == kindWrite {
			d.writeTop(e.data, e.off)
		}
	}
	d.settle()
	d.point, d.covered = point, covered

	rng := rand.New(rand.NewPCG(seed, uint64(point)))
	chance := []float64{0.1, 0.5, 0.9}[rng.IntN(3)]
	for _, e := range d.log[covered:point] {
		switch {
		case e.kind != kindWrite || mode == Dropped:
		case mode == Kept, mode == Some && rng.Float64() < chance:
			d.writeTop(e.data, e.off)
		case mode == Torn:
			for at := 0; at < len(e.data); at += sectorSize {
				if rng.Float64() < chance {
					d.writeTop(e.data[at:min(at+sectorSize, len(e.data))], e.off+int64(at))
				}
			}
		}
	}
	return nil
}
