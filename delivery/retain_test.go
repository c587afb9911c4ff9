package delivery

import (
	"os"
	"strings"
	"testing"
)

// A copy that hangs may read the body long after the message was answered: until
// it lets go, neither the memory nor the file goes to anybody else.
func TestRetainedBodyOutlivesTheMessage(t *testing.T) {
	for _, memory := range []int64{0, -1} {
		sp, err := Spool{Dir: t.TempDir(), Memory: memory}.take(strings.NewReader("first\r\n"), 0)
		if err != nil {
			t.Fatal(err)
		}
		held := sp.Body
		release := held.Retain()
		sp.Close()
		for range 10 {
			other, err := Spool{Dir: t.TempDir(), Memory: memory}.take(strings.NewReader("other\r\n"), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
		}
		if held.File == nil {
			if string(held.Data) != "first\n" {
				t.Errorf("the memory has become %q", held.Data)
			}
		} else {
			b := make([]byte, 6)
			if _, err := held.File.ReadAt(b, 0); err != nil || string(b) != "first\n" {
				t.Errorf("the file has become %q, %v", b, err)
			}
		}
		release()
		if held.File != nil {
			if _, err := held.File.ReadAt(make([]byte, 1), 0); !strings.Contains(err.Error(), os.ErrClosed.Error()) {
				t.Errorf("the file stays open: %v", err)
			}
		}
	}
}
