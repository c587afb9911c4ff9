package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// journalSocket is where journald takes records in its native protocol
// (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const journalSocket = "/run/systemd/journal/socket"

const (
	// journalPatience is how long a record may wait for a journal that is not
	// reading. It is short: deliveries wait behind it.
	journalPatience = 500 * time.Millisecond
	// maxJournalValue bounds one value, in octets, so that a record fits a datagram.
	maxJournalValue = 4 << 10
)

// journalHandler sends records to the journal: MESSAGE is a line of text as the
// other formats have it, and each attribute is a field too, in upper case behind
// LMTPD_, for journalctl LMTPD_TO=ann@example.org. No control character gets there.
//
// It is our own and not go-systemd's journal.Send because that waits for ever, with
// every delivery behind it, when the journal has stopped reading.
type journalHandler struct {
	out      *journalWriter
	level    slog.Leveler
	fallback slog.Handler // takes what the journal does not
	group    string       // open groups, each followed by a dot
	attrs    journalRecord
}

// newJournalHandler opens the way to the journal at path.
func newJournalHandler(path string, level slog.Leveler, fallback slog.Handler) (*journalHandler, error) {
	out := &journalWriter{addr: &net.UnixAddr{Name: path, Net: "unixgram"}}
	if err := out.dial(); err != nil {
		return nil, err
	}
	return &journalHandler{out: out, level: level, fallback: fallback}, nil
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.fallback = h.fallback.WithAttrs(attrs)
	next.attrs = journalRecord{slices.Clone(h.attrs.text), slices.Clone(h.attrs.fields)}
	for _, a := range attrs {
		next.attrs.add(h.group, a)
	}
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.fallback = h.fallback.WithGroup(name)
	next.group += name + "."
	return &next
}

var journalRecords = sync.Pool{New: func() any { return new(journalRecord) }}

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	rec := journalRecords.Get().(*journalRecord)
	defer journalRecords.Put(rec)
	rec.text = appendPrintable(rec.text[:0], r.Message)
	rec.text = append(rec.text, h.attrs.text...)
	rec.fields = append(rec.fields[:0], "SYSLOG_IDENTIFIER=lmtpd\nPRIORITY="...)
	rec.fields = append(rec.fields, journalPriority(r.Level), '\n')
	rec.fields = append(rec.fields, h.attrs.fields...)
	r.Attrs(func(a slog.Attr) bool {
		rec.add(h.group, a)
		return true
	})
	rec.fields = append(append(append(rec.fields, "MESSAGE="...), rec.text...), '\n')
	err := h.out.send(rec.fields)
	if errors.Is(err, errJournalAway) {
		return h.fallback.Handle(ctx, r)
	}
	return err
}

// journalPriority is the syslog level (sd-daemon(3)).
func journalPriority(l slog.Level) byte {
	switch {
	case l >= slog.LevelError:
		return '3'
	case l >= slog.LevelWarn:
		return '4'
	case l >= slog.LevelInfo:
		return '6'
	}
	return '7'
}

// journalRecord is a record in the making.
type journalRecord struct {
	text   []byte // " key=value" of each attribute
	fields []byte // "LMTPD_KEY=value\n" of each
}

func (rec *journalRecord) add(group string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, sub := range v.Group() {
			rec.add(group, sub)
		}
		return
	case a.Equal(slog.Attr{}):
		return
	}
	start := len(rec.fields)
	rec.fields = appendFieldName(rec.fields, group, a.Key)
	value := len(rec.fields)
	rec.fields = appendValue(rec.fields, v)
	rec.text = append(rec.text, ' ')
	rec.text = appendPrintable(appendPrintable(rec.text, group), a.Key)
	rec.text = append(rec.text, '=')
	switch written := rec.fields[value:]; {
	case plainWord(written):
		rec.text = append(rec.text, written...)
	case v.Kind() == slog.KindString:
		rec.text = strconv.AppendQuote(rec.text, bounded(v.String()))
	default:
		rec.text = strconv.AppendQuote(rec.text, bounded(fmt.Sprint(v.Any())))
	}
	if value == len(rec.fields) {
		rec.fields = rec.fields[:start] // an empty field says nothing
		return
	}
	rec.fields = append(rec.fields, '\n')
}

// appendFieldName: upper case, digits and underscores, 64 at most.
func appendFieldName(b []byte, group, key string) []byte {
	start := len(b)
	b = append(b, "LMTPD_"...)
	for _, s := range [2]string{group, key} {
		for i := 0; i < len(s) && len(b)-start < 64; i++ {
			c := s[i]
			switch {
			case c >= 'a' && c <= 'z':
				c -= 'a' - 'A'
			case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			default:
				c = '_'
			}
			b = append(b, c)
		}
	}
	return append(b, '=')
}

func appendValue(b []byte, v slog.Value) []byte {
	switch v.Kind() {
	case slog.KindString:
		return appendPrintable(b, v.String())
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10)
	case slog.KindFloat64:
		return strconv.AppendFloat(b, v.Float64(), 'g', -1, 64)
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool())
	case slog.KindTime:
		return v.Time().AppendFormat(b, time.RFC3339Nano)
	}
	return appendPrintable(b, v.String())
}

// appendPrintable appends s, bounded, with everything that could act on a terminal
// or end a line in its escaped form.
func appendPrintable(b []byte, s string) []byte {
	s = bounded(s)
	for i := 0; i < len(s); {
		if c := s[i]; c >= ' ' && c < 0x7f {
			b = append(b, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if n > 1 && unicode.IsPrint(r) {
			b = append(b, s[i:i+n]...)
		} else {
			q := strconv.Quote(s[i : i+n])
			b = append(b, q[1:len(q)-1]...)
		}
		i += n
	}
	return b
}

func bounded(s string) string {
	if len(s) > maxJournalValue {
		return s[:maxJournalValue] + "..."
	}
	return s
}

// plainWord reports whether a value of printable characters needs no quotes.
func plainWord(b []byte) bool {
	for _, c := range b {
		if c == ' ' || c == '"' || c == '=' || c == '\\' {
			return false
		}
	}
	return len(b) > 0
}

// journalWriter is the socket. It is connected, so that poll(2) knows when the
// journal reads again, and connected anew when the journal was.
type journalWriter struct {
	addr *net.UnixAddr
	mu   sync.Mutex
	conn *net.UnixConn
	lost uint64 // records since the journal stopped reading
}

var errJournalAway = errors.New("the journal is away")

func (w *journalWriter) dial() error {
	conn, err := net.DialUnix("unixgram", nil, w.addr)
	if err == nil {
		w.conn = conn
		_ = conn.SetWriteBuffer(1 << 20) // bounded by net.core.wmem_max
	}
	return err
}

// send gives up a record that the journal does not take in time, and does not wait
// again until it reads: standard error leads to the same journal, and would block.
func (w *journalWriter) send(datagram []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	patience := journalPatience
	if w.lost > 0 {
		patience = time.Millisecond
	}
	for range 2 {
		if w.conn == nil && w.dial() != nil {
			return errJournalAway
		}
		_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
		_, err := w.conn.Write(datagram)
		switch {
		case err == nil && w.lost > 0:
			if _, err := fmt.Fprintf(w.conn, "SYSLOG_IDENTIFIER=lmtpd\nPRIORITY=4\nMESSAGE=%d lines lost while the journal did not read\n", w.lost); err == nil {
				w.lost = 0
			}
			return nil
		case err == nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.lost++
			return err
		}
		w.conn.Close()
		w.conn = nil
	}
	return errJournalAway
}

// escapeWriter takes the lines of slog's JSON handler, which lets DEL, C1 controls
// and what turns the writing direction through as they are, and escapes those.
type escapeWriter struct {
	w interface{ Write([]byte) (int, error) }
}

func (e escapeWriter) Write(line []byte) (int, error) {
	var out strings.Builder
	done := 0
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRune(line[i:])
		if r < 0x7f || unicode.IsPrint(r) {
			i += n
			continue
		}
		out.Write(line[done:i])
		for _, u := range utf16.Encode([]rune{r}) {
			out.WriteString(`\u` + strconv.FormatUint(0x10000|uint64(u), 16)[1:])
		}
		i += n
		done = i
	}
	if done > 0 {
		out.Write(line[done:])
		_, err := e.w.Write([]byte(out.String()))
		return len(line), err
	}
	return e.w.Write(line)
}
