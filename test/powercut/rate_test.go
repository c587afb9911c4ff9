package powercut

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What each order of the steps costs on a file system in an image on this
// machine's disk, below a loop device with direct I/O. The orders take turns, so
// that their ratios hold however the machine is loaded. One iteration is a round.
func BenchmarkOrders(b *testing.B) {
	if os.Getuid() != 0 {
		b.Skip("not root: cannot mount")
	}
	for _, f := range filesystems {
		for _, threads := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d", f.name, threads), func(b *testing.B) { rates(b, &f, threads) })
		}
	}
}

func rates(b *testing.B, f *filesystem, threads int) {
	dir := b.TempDir()
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	file, err := os.Create(image)
	if err == nil {
		err = unix.Fallocate(int(file.Fd()), 0, 0, 2<<30)
		file.Close()
	}
	if err == nil {
		err = os.Mkdir(mnt, 0o755)
	}
	if err == nil {
		err = f.command(f.mkfs, image)
	}
	if err == nil {
		err = f.mount(image, mnt)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unmount(mnt) })
	const users, each = 100, 200
	for u := range users {
		for _, sub := range []string{"tmp", "new"} {
			if err := os.MkdirAll(filepath.Join(mnt, userName(u), "Maildir", sub), 0o700); err != nil {
				b.Fatal(err)
			}
		}
	}
	body := content(1, 3900)
	orders := []order{strict, again, byTmp, oneCommit, hinted}
	took := make([][]time.Duration, len(orders))
	for turn := 0; b.Loop(); turn++ {
		for k := range orders {
			i := (turn + k) % len(orders)
			o := orders[i]
			w := &writer{root: mnt, order: o}
			w.serial.Store(time.Now().UnixNano())
			begin := time.Now()
			var wg sync.WaitGroup
			for th := range threads {
				wg.Go(func() {
					for n := range each {
						if err := w.deliver(body, []int{(th*7 + n) % users}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			took[i] = append(took[i], time.Since(begin))
			if err := empty(mnt, users); err != nil {
				b.Fatal(err)
			}
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(threads*each) / took[i][len(took[i])/2].Seconds()
	}
	b.ReportMetric(0, "ns/op")
	for i, o := range orders {
		b.ReportMetric(median(i), fmt.Sprintf("%s/s", []string{"strict", "again", "bytmp", "one", "hinted"}[i]))
		if o != strict {
			b.ReportMetric(median(i)/median(0), fmt.Sprintf("%s/strict", []string{"", "again", "bytmp", "one", "hinted"}[i]))
		}
	}
}

// empty removes all messages and has the file system write what it still has to,
// so that each order begins alike.
func empty(mnt string, users int) error {
	for u := range users {
		files, err := filepath.Glob(filepath.Join(mnt, userName(u), "Maildir/new/*"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	dir, err := os.Open(mnt)
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Syncfs(int(dir.Fd()))
}
