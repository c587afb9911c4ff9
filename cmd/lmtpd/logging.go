package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// openLog makes the logger of the daemon. journalStream is the value of
// $JOURNAL_STREAM, socket the journal's own socket.
func openLog(c *config, stderr *os.File, journalStream, socket string) (*slog.Logger, error) {
	toJournal := isJournal(journalStream, stderr)
	plain := newHandler(stderr, c.Log, !toJournal)
	if c.Log.Target == logTargetStderr || c.Log.Target == logTargetAuto && !toJournal {
		return slog.New(plain), nil
	}
	h, err := newJournalHandler(socket, c.Log.Level.slog(), plain)
	switch {
	case err == nil:
		return slog.New(h), nil
	case c.Log.Target == logTargetAuto:
		// The stream that systemd gave us leads there as well, without the fields.
		return slog.New(plain), nil
	}
	return nil, configErrors{c.doc.fault(c.doc.line("log.target"), "log.target",
		"the journal's socket "+socket+" cannot be reached: "+errnoOf(err).Error(), `write target = "stderr" where no systemd-journald runs`)}
}

// newLogger writes to w as [log] says. timestamps is false where the reader of w keeps
// the time itself, as the journal does.
func newLogger(w io.Writer, c logConfig, timestamps bool) *slog.Logger {
	return slog.New(newHandler(w, c, timestamps))
}

func newHandler(w io.Writer, c logConfig, timestamps bool) slog.Handler {
	options := &slog.HandlerOptions{Level: c.Level.slog()}
	if !timestamps {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	if c.Format == logFormatJSON {
		return slog.NewJSONHandler(escapeWriter{w}, options)
	}
	return slog.NewTextHandler(w, options)
}

func (l logLevel) slog() slog.Level {
	switch l {
	case logLevelDebug:
		return slog.LevelDebug
	case logLevelWarn:
		return slog.LevelWarn
	case logLevelError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// isJournal reports whether f is the stream to the journal that journalStream, the value
// of $JOURNAL_STREAM, names as DEVICE:INODE (systemd.exec(5)): the variable is inherited
// also by processes whose output has been sent elsewhere.
func isJournal(journalStream string, f *os.File) bool {
	var device, inode uint64
	if _, err := fmt.Sscanf(journalStream, "%d:%d", &device, &inode); err != nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && uint64(st.Dev) == device && st.Ino == inode
}
