package writer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A packet is one message of the seqpacket socket: magic, version and one or more
// whole frames. A frame is a type, the length of its payload in 32 bits, and the
// payload. Numbers are big-endian.
const (
	network = "unixpacket" // SOCK_SEQPACKET: packets arrive whole, each with its descriptor

	magic   = "LW"
	version = 2

	headSize  = len(magic) + 1
	frameHead = 5
	maxPacket = 64 << 10 // octets; the kernel's default socket buffer holds three
)

// Frames of a request, in the order begin, target..., data..., and cancel at any
// time after them.
const (
	frameBegin  = 'B'
	frameTarget = 'T'
	frameData   = 'D'
	frameCancel = 'C'
)

// cancelPacket is always a packet of its own.
const cancelPacket = magic + string(rune(version)) + string(rune(frameCancel)) + "\x00\x00\x00\x00"

// Frames of the answer: one result for each target, in any order, or a refusal
// of the whole request, after which the connection is closed. A refusal looks the
// same in every version.
const (
	frameResult  = 'R'
	frameRefused = 'X'
)

// errProtocol is what everything else is that does not follow these rules.
var errProtocol = errors.New("protocol error between front and writer")

// versionError is a packet of another version.
type versionError byte

func (v versionError) Error() string {
	return fmt.Sprintf("the other process speaks version %d of the protocol between front and writer and this one version %d: restart both", byte(v), version)
}

// newPacket begins a packet in the storage of buf.
func newPacket(buf []byte) []byte {
	return append(append(buf[:0], magic...), version)
}

// beginFrame appends the head of a frame; endFrame sets its length.
func beginFrame(b []byte, kind byte) []byte { return append(b, kind, 0, 0, 0, 0) }

// endFrame completes the frame that begins at start.
func endFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-frameHead))
	return b
}

// frames calls f for each frame of a packet.
func frames(packet []byte, f func(kind byte, payload []byte) error) error {
	if len(packet) < headSize || string(packet[:len(magic)]) != magic {
		return fmt.Errorf("%w: not a packet", errProtocol)
	}
	v, rest := packet[len(magic)], packet[headSize:]
	if len(rest) == 0 {
		return fmt.Errorf("%w: empty packet", errProtocol)
	}
	for len(rest) > 0 {
		if len(rest) < frameHead {
			return fmt.Errorf("%w: %d octets at the end of a packet", errProtocol, len(rest))
		}
		kind, n := rest[0], binary.BigEndian.Uint32(rest[1:])
		if v != version && kind != frameRefused {
			return versionError(v)
		}
		rest = rest[frameHead:]
		if uint64(n) > uint64(len(rest)) {
			return fmt.Errorf("%w: frame of %d octets with %d left in the packet", errProtocol, n, len(rest))
		}
		if err := f(kind, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// decoder takes values from a payload. After the first mistake it gives zeros, and
// end reports it.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...))
	}
	d.rest = nil
}

func (d *decoder) take(n int, what string) []byte {
	if n > len(d.rest) {
		d.fail("%s is cut short", what)
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) octet(what string) byte {
	if b := d.take(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32(what string) uint32 {
	if b := d.take(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// count is a number that is never negative, such as a size or a duration.
func (d *decoder) count(what string) int64 {
	b := d.take(8, what)
	if b == nil {
		return 0
	}
	n := int64(binary.BigEndian.Uint64(b))
	if n < 0 {
		d.fail("%s is negative", what)
		return 0
	}
	return n
}

// octets are up to most octets, which stay where they are.
func (d *decoder) octets(most int, what string) []byte {
	n := d.uint32(what)
	if uint64(n) > uint64(most) {
		d.fail("%s of %d octets, and %d are allowed", what, n, most)
		return nil
	}
	return d.take(int(n), what)
}

func (d *decoder) text(most int, what string) string { return string(d.octets(most, what)) }

// end reports the first mistake; octets that are left over are one.
func (d *decoder) end() error {
	if len(d.rest) > 0 {
		d.fail("%d octets left over", len(d.rest))
	}
	return d.err
}

func appendUint32(b []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(b, n) }
func appendCount(b []byte, n int64) []byte   { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(appendUint32(b, uint32(len(s))), s...)
}

// appendRefused appends the refusal of a request.
func appendRefused(b []byte, why string) []byte {
	start := len(b)
	return endFrame(appendText(beginFrame(b, frameRefused), clip(why, maxText)), start)
}

func decodeRefused(payload []byte) (string, error) {
	d := decoder{rest: payload}
	why := d.text(maxText, "refusal")
	return why, d.end()
}

// clip cuts s to at most n octets.
func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
