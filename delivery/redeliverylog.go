package delivery

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// ErrInUse: another process has the memory of deliveries open.
var ErrInUse = errors.New("in use by another process")

// redeliveryLog is the file of a Redelivery: records that are appended one after
// the other and, so that it does not grow for ever, replaced now and then by a new
// file of what is remembered. It is never synced: a process that ends leaves its
// writes with the kernel, and after a power cut a copy too many is the worst that
// can happen. A record is as long as the header that comes first:
//
//	kind 1, zero 3, key 16, token 8, time 4 (seconds since 1970), CRC-32C 4
//	"lmtpd-again\x01", boot id 16, zero 4, CRC-32C 4
//
// Numbers are little-endian. A record that is torn or strange is passed over.
type redeliveryLog struct {
	path   string
	file   *os.File
	boot   [16]byte
	size   int64 // of the file; what lies behind it is overwritten
	limit  int64 // size at which it is replaced
	failed bool  // the last write was a failure
}

const (
	recordSize  = 36
	recordMagic = "lmtpd-again\x01"

	recordBegun     = 1
	recordDone      = 2
	recordForgotten = 3

	// minimumLimit is how large a file is worth replacing at least, in octets.
	minimumLimit = 256 << 10
	// maxLogSize bounds what is read of a file, in octets.
	maxLogSize = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one of the file.
type record struct {
	kind  byte
	key   redeliveryKey
	token uint64
	at    int64
}

func (a *attempt) append(b []byte, kind byte) []byte {
	start := len(b)
	b = append(b, kind, 0, 0, 0)
	b = append(b, a.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, a.token)
	b = binary.LittleEndian.AppendUint32(b, uint32(a.at))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// decodeRecord reports whether b is a record that can be believed.
func decodeRecord(b []byte) (rec record, ok bool) {
	if binary.LittleEndian.Uint32(b[32:]) != crc32.Checksum(b[:32], castagnoli) {
		return rec, false
	}
	rec = record{
		kind: b[0], key: redeliveryKey(b[4:20]),
		token: binary.LittleEndian.Uint64(b[20:]), at: int64(binary.LittleEndian.Uint32(b[28:])),
	}
	return rec, rec.kind >= recordBegun && rec.kind <= recordForgotten
}

func (l *redeliveryLog) header() []byte {
	b := append([]byte(recordMagic), l.boot[:]...)
	b = append(b, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// openRedeliveryLog opens and locks the file in a directory, and calls replay for
// each record in it. Records of an earlier boot of the machine count only if they
// are durable: the power may have been cut.
func openRedeliveryLog(dir string, durable bool, replay func(record)) (*redeliveryLog, error) {
	l := &redeliveryLog{path: filepath.Join(dir, "redelivery"), boot: bootID(), limit: minimumLimit}
	for range 10 {
		f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", l.path, err)
		}
		if isAt(f, l.path) {
			l.file = f
			break
		}
		f.Close() // replaced by its owner, which has just ended
	}
	if l.file == nil {
		return nil, fmt.Errorf("%s: %w", l.path, ErrInUse)
	}
	data, err := io.ReadAll(io.LimitReader(l.file, maxLogSize))
	if err != nil {
		l.file.Close()
		return nil, err
	}
	l.size = int64(len(data))
	header := l.header()
	if len(data) < recordSize || !bytes.HasPrefix(data, []byte(recordMagic)) {
		return l, nil // empty, or of a version that is not ours
	}
	if !durable && (l.boot == [16]byte{} || !bytes.Equal(data[:recordSize], header)) {
		return l, nil
	}
	for data = data[recordSize:]; len(data) >= recordSize; data = data[recordSize:] {
		if rec, ok := decodeRecord(data[:recordSize]); ok {
			replay(rec)
		}
	}
	return l, nil
}

// bootID is different after each boot of the machine; zero if it is not known.
func bootID() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	text = bytes.ReplaceAll(bytes.TrimSpace(text), []byte("-"), nil)
	if n := len(text) / 2; n == len(id) {
		for i := range id {
			fmt.Sscanf(string(text[2*i:2*i+2]), "%02x", &id[i])
		}
	}
	return id
}

func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}

// isAt reports whether f is what has the name path.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// append writes records behind those that are there. After an error the next ones
// take their place.
func (l *redeliveryLog) append(records []byte) error {
	if _, err := l.file.WriteAt(records, l.size); err != nil {
		return err
	}
	l.size += int64(len(records))
	l.failed = false
	return nil
}

// grown reports that it is time to replace the file.
func (l *redeliveryLog) grown() bool { return l.size > l.limit }

// replace makes a new file of records and puts it in place of the old one.
func (l *redeliveryLog) replace(records []byte) error {
	l.limit = 2 * max(l.size, l.limit) // unless it works: not at every record
	f, err := os.OpenFile(l.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(l.header(), records...))
	if err == nil {
		err = lock(f)
	}
	if err == nil {
		err = os.Rename(l.path+".new", l.path)
	}
	if err != nil {
		f.Close()
		os.Remove(l.path + ".new")
		return err
	}
	l.file.Close()
	l.file = f
	l.size = int64(recordSize + len(records))
	l.limit = max(minimumLimit, 4*l.size)
	l.failed = false
	return nil
}

func (l *redeliveryLog) close() error { return l.file.Close() }
