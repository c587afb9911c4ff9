package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
	"time"
	"unicode"
)

// fakeJournal is a socket where journald would have its own.
type fakeJournal struct {
	path string
	conn *net.UnixConn
}

func newFakeJournal(t *testing.T) *fakeJournal {
	t.Helper()
	j := &fakeJournal{path: filepath.Join(t.TempDir(), "socket")}
	j.listen(t)
	return j
}

func (j *fakeJournal) listen(t *testing.T) {
	t.Helper()
	var err error
	if j.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.conn.Close() })
}

// record takes the next one apart; every field has to be one line.
func (j *fakeJournal) record(t *testing.T) map[string]string {
	t.Helper()
	buf := make([]byte, 1<<20)
	j.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := j.conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(buf[:n])) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if _, twice := fields[name]; !ok || twice || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %q of %q", line, buf[:n])
		}
		fields[name] = value
	}
	return fields
}

func (j *fakeJournal) handler(t *testing.T, fallback io.Writer) *journalHandler {
	t.Helper()
	h, err := newJournalHandler(j.path, slog.LevelInfo, slog.NewTextHandler(fallback, nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.out.conn != nil {
			h.out.conn.Close()
		}
	})
	return h
}

func TestJournalFields(t *testing.T) {
	j := newFakeJournal(t)
	log := slog.New(j.handler(t, io.Discard))
	log.Debug("not shown")
	log.Warn("recipient", "to", "ann@example.org", "queue_id", "4XyZ", "folder", "", "size", 1234,
		"delay_sync", 4.512, "duplicate", true, "text", `two "words"`)
	got := j.record(t)
	for name, want := range map[string]string{
		"PRIORITY": "4", "SYSLOG_IDENTIFIER": "lmtpd", "LMTPD_TO": "ann@example.org", "LMTPD_QUEUE_ID": "4XyZ",
		"LMTPD_SIZE": "1234", "LMTPD_DELAY_SYNC": "4.512", "LMTPD_DUPLICATE": "true", "LMTPD_TEXT": `two "words"`,
		"MESSAGE": `recipient to=ann@example.org queue_id=4XyZ folder="" size=1234 delay_sync=4.512 duplicate=true text="two \"words\""`,
	} {
		if got[name] != want {
			t.Errorf("%s=%s, want %s", name, got[name], want)
		}
	}
	if _, has := got["LMTPD_FOLDER"]; has {
		t.Error("an empty field")
	}
}

func TestJournalHandlerIsAHandler(t *testing.T) {
	j := newFakeJournal(t)
	slogtest.Run(t, func(*testing.T) slog.Handler { return j.handler(t, io.Discard) }, func(t *testing.T) map[string]any {
		f := j.record(t)
		m := map[string]any{slog.LevelKey: f["PRIORITY"], slog.TimeKey: "the journal's own"}
		word, _, _ := strings.Cut(f["MESSAGE"], " ")
		m[slog.MessageKey] = word
		// Groups are in the text.
		for _, attr := range strings.Fields(f["MESSAGE"])[1:] {
			key, value, _ := strings.Cut(attr, "=")
			at := m
			path := strings.Split(key, ".")
			for _, g := range path[:len(path)-1] {
				if at[g] == nil {
					at[g] = map[string]any{}
				}
				at = at[g].(map[string]any)
			}
			at[path[len(path)-1]] = value
		}
		if strings.HasSuffix(t.Name(), "/zero-time") {
			delete(m, slog.TimeKey)
		}
		return m
	})
}

// A record that the journal does not take goes to standard error if the journal is
// away, and to the journal again once that is back.
func TestJournalAway(t *testing.T) {
	j := newFakeJournal(t)
	var stderr bytes.Buffer
	log := slog.New(j.handler(t, &stderr))
	log.Info("one")
	j.record(t)
	j.conn.Close()
	os.Remove(j.path)
	log.Info("two", "to", "ann")
	if got := stderr.String(); !strings.Contains(got, "msg=two to=ann") {
		t.Errorf("stderr: %q", got)
	}
	j.listen(t)
	log.Info("three")
	if got := j.record(t)["MESSAGE"]; got != "three" {
		t.Errorf("got %q", got)
	}
}

// A journal that has stopped reading costs one wait, and then lines.
func TestJournalDoesNotRead(t *testing.T) {
	j := newFakeJournal(t)
	h := j.handler(t, io.Discard)
	var err error
	sent := 0
	for ; err == nil && sent < 1<<20; sent++ {
		err = h.out.send([]byte("MESSAGE=x\n"))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after %d records: %v", sent, err)
	}
	if err := h.out.send([]byte("MESSAGE=y\n")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	for range sent - 1 {
		j.record(t)
	}
	if err := h.out.send([]byte("MESSAGE=z\n")); err != nil {
		t.Fatal(err)
	}
	if got := j.record(t)["MESSAGE"]; got != "z" {
		t.Errorf("got %q", got)
	}
	if got := j.record(t); got["MESSAGE"] != "2 lines lost while the journal did not read" {
		t.Errorf("got %q", got)
	}
}

// hostile is what a peer may have put into an address or a header field.
const hostile = "a\r\nPRIORITY=0\nLMTPD_X=1\x00\x1b[2J\x7f\u009b31m\u202egnp\u2028\xff\xc2\"\\=\t\U000e0001 ü"

// Nothing that comes from the wire can end a line, add a field or reach a terminal.
func TestNoControlCharacterInAnyLog(t *testing.T) {
	j := newFakeJournal(t)
	var text, json bytes.Buffer
	handlers := map[string]slog.Handler{
		"text":    newHandler(&text, logConfig{Level: logLevelInfo, Format: logFormatText}, true),
		"json":    newHandler(&json, logConfig{Level: logLevelInfo, Format: logFormatJSON}, true),
		"journal": j.handler(t, io.Discard),
	}
	for name, h := range handlers {
		slog.New(h).With("with", hostile).WithGroup("g").Info("recipient", "to", hostile, "error", errors.New(hostile), hostile, "key", "any", []string{hostile})
		var lines string
		switch name {
		case "text":
			lines = text.String()
		case "json":
			lines = json.String()
		default:
			fields := j.record(t)
			if fields["PRIORITY"] != "6" || fields["LMTPD_X"] != "" {
				t.Errorf("forged: %q", fields)
			}
			for _, v := range fields {
				lines += v
			}
			lines += "\n"
		}
		if strings.Count(lines, "\n") != 1 {
			t.Errorf("%s: %d lines: %q", name, strings.Count(lines, "\n"), lines)
		}
		for _, r := range strings.TrimSuffix(lines, "\n") {
			if !unicode.IsPrint(r) {
				t.Errorf("%s: %U in %q", name, r, lines)
				break
			}
		}
		if !strings.Contains(lines, "ü") {
			t.Errorf("%s: printable text is gone: %q", name, lines)
		}
	}
}

func TestJournalValuesAreBounded(t *testing.T) {
	j := newFakeJournal(t)
	slog.New(j.handler(t, io.Discard)).Info("x", "stack", strings.Repeat("ü", 1<<20))
	if got := j.record(t)["LMTPD_STACK"]; len(got) > 2*maxJournalValue {
		t.Errorf("%d octets", len(got))
	}
}

func TestOpenLog(t *testing.T) {
	j := newFakeJournal(t)
	stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	c := loadText(t, "[log]\ntarget = 'journal'\n")
	log, err := openLog(c, stderr, "", j.path)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello")
	if got := j.record(t)["MESSAGE"]; got != "hello" {
		t.Errorf("got %q", got)
	}
	if _, err := openLog(c, stderr, "", j.path+".not"); err == nil || !strings.HasPrefix(err.Error(), "test.toml:2: log.target: the journal's socket ") {
		t.Errorf("got %v", err)
	}
	for _, target := range []string{"auto", "stderr"} {
		c = loadText(t, "[log]\ntarget = '"+target+"'\n")
		if log, err = openLog(c, stderr, "1:2", j.path); err != nil {
			t.Fatal(err)
		}
		log.Info("to " + target)
	}
	data, _ := os.ReadFile(stderr.Name())
	if strings.Count(string(data), "\n") != 2 {
		t.Errorf("stderr: %s", data)
	}
}

func BenchmarkJournal(b *testing.B) {
	path := filepath.Join(b.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	h, err := newJournalHandler(path, slog.LevelInfo, slog.DiscardHandler)
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(h)
	b.ReportAllocs()
	for b.Loop() {
		log.Info("recipient", "to", "ann@example.org", "from", "bob@example.net", "queue_id", "4XyZ1b2C3dz", "size", 4096, "delay_sync", 4.512)
	}
}
