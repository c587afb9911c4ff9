package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// message is what the load generator sends: always the same octets but for a
// number in the header.
type message struct {
	head, tail []byte
}

const (
	idField  = "X-Bench-Id: "
	idDigits = 16
)

// newMessage makes a message of about this many octets as they go over the wire.
func newMessage(size int) *message {
	m := &message{head: []byte("From: Sender <sender@example.net>\r\n" +
		"To: Some Users <users@example.org>\r\n" +
		"Date: Sat, 21 Nov 2026 09:00:00 +0000\r\n" +
		"Message-Id: <0123456789abcdef@example.net>\r\n" +
		"Subject: A message of some kilooctets\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=us-ascii\r\n" + idField)}
	line := []byte(strings.Repeat("0123456789abcdef", 5)[:74] + "\r\n")
	m.tail = append(m.tail, "\r\n\r\n"...)
	if n := size - len(m.head) - idDigits - len(m.tail); n > 0 {
		m.tail = append(m.tail, bytes.Repeat(line, max(1, n/len(line)))...)
	}
	m.tail = append(m.tail, ".\r\n"...)
	return m
}

// size is what counts for SIZE=: without the final dot.
func (m *message) size() int64 { return int64(len(m.head)+idDigits+len(m.tail)) - int64(len(".\r\n")) }

// file is the message as it is stored: lines end with LF, and no dot ends it.
func (m *message) file() *message {
	lf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) }
	return &message{head: lf(m.head), tail: lf(bytes.TrimSuffix(m.tail, []byte(".\r\n")))}
}

// stored is its size then; a trace header may come on top.
func (m *message) stored() int64 { return int64(len(m.head) + idDigits + len(m.tail)) }

const together = 64 << 10 // octets that are copied to go in one write

// pieces gives the message with this number, in one piece where it is small. They
// are valid until the next call with the same buffer.
func (m *message) pieces(id uint64, buf *[]byte) [][]byte {
	*buf = fmt.Appendf(append((*buf)[:0], m.head...), "%0*x", idDigits, id)
	if len(m.tail) > together {
		return [][]byte{*buf, m.tail}
	}
	*buf = append(*buf, m.tail...)
	return [][]byte{*buf}
}

// findID gives the number of a stored message from the first octets of its file.
func findID(head []byte) (uint64, error) {
	_, rest, ok := bytes.Cut(head, []byte("\n"+idField))
	if !ok || len(rest) < idDigits {
		return 0, fmt.Errorf("no %q in the file", strings.TrimSpace(idField))
	}
	return strconv.ParseUint(string(rest[:idDigits]), 16, 64)
}
