package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// newMail reads each message of a Maildir in the moment in which it gets its name in
// new/: the reader that is most likely to see half of one.
type newMail struct {
	dir    string
	events *os.File
	over   chan struct{}
	seen   int // messages; the others had been moved away
	wrong  []string
}

func watchNewMail(t *testing.T, maildir string) *newMail {
	t.Helper()
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	w := &newMail{dir: filepath.Join(maildir, "new"), events: os.NewFile(uintptr(fd), "inotify"), over: make(chan struct{})}
	t.Cleanup(func() { w.events.Close() })
	if _, err := syscall.InotifyAddWatch(fd, w.dir, syscall.IN_CREATE|syscall.IN_MOVED_TO|syscall.IN_DELETE_SELF); err != nil {
		t.Fatal(err)
	}
	go w.run()
	return w
}

func (w *newMail) run() {
	defer close(w.over)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.events.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= syscall.SizeofInotifyEvent; {
			e := (*syscall.InotifyEvent)(unsafe.Pointer(&b[0]))
			end := syscall.SizeofInotifyEvent + int(e.Len)
			name := strings.TrimRight(string(b[syscall.SizeofInotifyEvent:end]), "\x00")
			b = b[end:]
			if name == endOfWatch {
				return
			}
			w.look(name)
		}
	}
}

func (w *newMail) look(name string) {
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	switch at := numberLine.FindSubmatchIndex(text); {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		w.wrong = append(w.wrong, err.Error())
	case at == nil || !bytes.Equal(text[at[0]:], numberedAs(text[at[2]:at[3]])):
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %.200q", name, text))
	}
	w.seen++
}

// numberedAs is the message with that number.
func numberedAs(digits []byte) []byte {
	n, err := strconv.Atoi(string(digits))
	if err != nil {
		return nil
	}
	return numbered(n)
}

// endOfWatch is the last name that the watch is to see.
const endOfWatch = ".end"

// end waits until every message has been looked at.
func (w *newMail) end(t *testing.T) {
	t.Helper()
	name := filepath.Join(w.dir, endOfWatch)
	writeFile(t, name, "")
	<-w.over
	if err := os.Remove(name); err != nil {
		t.Error(err)
	}
	if n := len(w.wrong); n > 0 {
		t.Errorf("%d messages were not whole as they came, such as %s", n, w.wrong[0])
	}
	if w.seen == 0 {
		t.Error("not one message was seen as it came")
	}
}
