package protocol

import (
	"bytes"
	"io"
	"os"
)

// spoolMemory is how much of a message is kept in memory; the whole of a larger one
// goes to a file.
const spoolMemory = 1 << 20

// spool is a complete message that can be read more than once and from several
// goroutines.
type spool struct {
	data []byte
	file *os.File // without a name; nil while data is all
	size int64
}

// newSpool reads body to its end. An error is the body's own, or one of the file.
func newSpool(body *Body) (*spool, error) {
	s := &spool{}
	if _, err := body.WriteTo(s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// Write takes the next octets of the message.
func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && len(s.data)+len(p) > spoolMemory {
		if err := s.spill(); err != nil {
			return 0, err
		}
	}
	s.size += int64(len(p))
	if s.file != nil {
		return s.file.Write(p)
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *spool) spill() error {
	f, err := os.CreateTemp("", "protocol-")
	if err != nil {
		return err
	}
	os.Remove(f.Name()) // whatever happens, nothing is left behind
	s.file = f
	_, err = f.Write(s.data)
	s.data = nil
	return err
}

// content is a reader of its own on the whole message, valid until close.
func (s *spool) content() *io.SectionReader {
	if s.file != nil {
		return io.NewSectionReader(s.file, 0, s.size)
	}
	return io.NewSectionReader(bytes.NewReader(s.data), 0, s.size)
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// NewBody makes a Body of r, to call a handler outside of a session: with a message
// that is there already, or in a test. The message is complete at io.EOF.
func NewBody(r io.Reader) *Body { return &Body{src: r} }
