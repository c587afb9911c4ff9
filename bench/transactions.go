package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// wireSession is one connection of the client of `bench protocol`. That client
// has the processors in common with the server that it measures, so it does as
// little as it can: one thread takes all its sessions in turns by blocking system
// calls, sends what it has prepared, and of a reply looks at no more than the code
// of each line.
type wireSession struct {
	fd    int
	buf   []byte // what has been read and not looked at
	chunk []byte
	at    int // step of the exchange whose replies are due; -1: the prologue
}

// step is what a client sends in one write, and the codes of the reply lines that
// it waits for before it sends more.
type step struct {
	send  []byte
	codes []string
}

// exchange is what a session does again and again.
type exchange struct {
	prologue *step
	steps    []step // of one transaction
}

// newExchange makes a transaction. RFC 2920 section 3.1 lets a client send the next
// envelope right behind a message; few do, but a server meets them.
func newExchange(lmtp bool, rcpts, size int, ahead bool) *exchange {
	envelope := step{send: []byte("MAIL FROM:<sender@example.net>\r\n"), codes: []string{"250"}}
	for i := range rcpts {
		envelope.send = fmt.Appendf(envelope.send, "RCPT TO:<%s>\r\n", userAddress(i))
		envelope.codes = append(envelope.codes, "250")
	}
	envelope.send = append(envelope.send, "DATA\r\n"...)
	envelope.codes = append(envelope.codes, "354")
	message := step{codes: []string{"250"}}
	if lmtp {
		message.codes = slices.Repeat(message.codes, rcpts)
	}
	var buf []byte
	for _, piece := range newMessage(size).pieces(0, &buf) {
		message.send = append(message.send, piece...)
	}
	if !ahead {
		return &exchange{steps: []step{envelope, message}}
	}
	both := step{append(message.send, envelope.send...), append(message.codes, envelope.codes...)}
	return &exchange{prologue: &envelope, steps: []step{both}}
}

func dialWire(path string) (*wireSession, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &wireSession{fd: fd, chunk: make([]byte, 4<<10)}
	limit := syscall.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit))
	if err == nil {
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
	}
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return s, nil
}

// hello takes the greeting and introduces the client.
func (s *wireSession) hello(lmtp bool) error {
	if err := s.reply("220"); err != nil {
		return err
	}
	verb := "EHLO"
	if lmtp {
		verb = "LHLO"
	}
	return s.ask(verb+" bench.example.net", "250")
}

// ask sends one command and takes its reply.
func (s *wireSession) ask(command, want string) error {
	if err := s.write([]byte(command + "\r\n")); err != nil {
		return err
	}
	return s.reply(want)
}

// reply takes one reply, of any number of lines.
func (s *wireSession) reply(want string) error {
	for {
		line, err := s.line()
		if err != nil {
			return err
		}
		if string(line[:3]) != want {
			return replyError(line)
		}
		if line[3] != '-' {
			return nil
		}
	}
}

func (s *wireSession) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(s.buf, '\n'); i >= 4 {
			line := s.buf[:i]
			s.buf = s.buf[i+1:]
			return line, nil
		} else if i >= 0 {
			return nil, fmt.Errorf("reply %q", s.buf[:i])
		}
		s.buf = append(s.chunk[:0], s.buf...) // what is left of a line goes to the front
		n, err := syscall.Read(s.fd, s.chunk[len(s.buf):])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return nil, errors.New("connection closed")
		}
		s.buf = s.chunk[:len(s.buf)+n]
	}
}

func (s *wireSession) write(b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(s.fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (s *wireSession) close() { syscall.Close(s.fd) }

func replyError(line []byte) error {
	code, _ := strconv.Atoi(string(line[:3]))
	return &refusal{code, string(line[4:])}
}

// begin sends what comes first.
func (s *wireSession) begin(e *exchange) error {
	if e.prologue != nil {
		s.at = -1
		return s.write(e.prologue.send)
	}
	s.at = 0
	return s.write(e.steps[0].send)
}

// await waits for the replies that are due. It reports whether a transaction has
// ended with them.
func (s *wireSession) await(e *exchange) (done bool, err error) {
	due := e.prologue
	if s.at >= 0 {
		due = &e.steps[s.at]
	}
	for _, code := range due.codes {
		line, err := s.line()
		if err != nil {
			return false, err
		}
		if string(line[:3]) != code {
			return false, replyError(line)
		}
	}
	return s.at == len(e.steps)-1, nil
}

// next sends the step after that.
func (s *wireSession) next(e *exchange) error {
	s.at = (s.at + 1) % len(e.steps)
	return s.write(e.steps[s.at].send)
}

// transactions keeps all sessions busy for a time, or for a number of
// transactions of each, and counts.
func transactions(sessions []*wireSession, e *exchange, p pace, measuring func(begins bool)) (n int, took time.Duration, err error) {
	for _, s := range sessions {
		if err := s.begin(e); err != nil {
			return 0, 0, err
		}
	}
	begin := time.Now()
	warm := p.each == 0
	if !warm {
		measuring(true)
	}
	for rounds := 0; ; rounds++ {
		now := time.Now()
		if warm && now.Sub(begin) >= p.warm {
			warm, begin, n = false, now, 0
			measuring(true)
		}
		if p.each == 0 && !warm && now.Sub(begin) >= p.measure || p.each > 0 && rounds > p.each*len(e.steps) {
			measuring(false)
			return n, now.Sub(begin), nil
		}
		for _, s := range sessions {
			done, err := s.await(e)
			if err == nil {
				err = s.next(e)
			}
			if err != nil {
				return n, 0, err
			}
			if done {
				n++
			}
		}
	}
}
