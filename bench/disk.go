package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disk is where all mail is written: a journaled ext4 with default options, on a
// file by way of a loop device with direct I/O, so that a sync goes down to the
// file and no second cache lies between.
type disk struct {
	dir    string // where it is mounted
	image  string // "": dir is a plain directory
	device string
}

// newDisk makes the file system below dir. Every block of the file is written
// once before: what the file system around it has to do for that is not measured.
func newDisk(dir string, mebibytes int) (*disk, error) {
	d := &disk{dir: filepath.Join(dir, "mnt"), image: filepath.Join(dir, "disk.img")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	for _, c := range [][]string{
		{"dd", "if=/dev/zero", "of=" + d.image, "bs=4M", fmt.Sprint("count=", mebibytes/4), "oflag=direct", "status=none"},
		{"mkfs.ext4", "-q", "-F", d.image},
	} {
		if err := command(c...); err != nil {
			return nil, err
		}
	}
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", d.image).Output()
	if err != nil {
		return nil, fmt.Errorf("losetup: %w", err)
	}
	d.device = strings.TrimSpace(string(out))
	if err := command("mount", d.device, d.dir); err != nil {
		return nil, errors.Join(err, command("losetup", "-d", d.device))
	}
	return d, nil
}

// close takes the file system away.
func (d *disk) close() error {
	if d.image == "" {
		return nil
	}
	var err error
	for range 50 { // a server's last process may be on its way out
		if err = syscall.Unmount(d.dir, 0); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(err, command("losetup", "-d", d.device), os.Remove(d.image))
}

// settle brings everything to disk, so that what was left by one measurement does
// not slow the next one down.
func (d *disk) settle() {
	f, err := os.Open(d.dir)
	if err != nil {
		return
	}
	defer f.Close()
	syscall.Fsync(int(f.Fd()))
	if d.image != "" {
		syscall.Sync()
	}
}

// written is how many octets have gone to the device so far.
func (d *disk) written() int64 {
	if d.device == "" {
		return 0
	}
	b, err := os.ReadFile("/sys/block/" + filepath.Base(d.device) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 7 {
		return 0
	}
	sectors, _ := strconv.ParseInt(f[6], 10, 64)
	return sectors << 9
}

// command runs a program and gives what it says if it fails.
func command(args ...string) error {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
