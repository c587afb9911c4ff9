package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A FIFO that nobody reads is an error, and not a wait that ends with the daemon.
func TestOpenDebugFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	open := openDebug(path)
	if _, err := open(); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("got %v", err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.(*os.File).SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Errorf("its deadline cannot be set: %v", err)
	}
}
