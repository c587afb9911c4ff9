package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestLogger(t *testing.T) {
	for _, test := range []struct {
		config     logConfig
		timestamps bool
		want       string
	}{
		{logConfig{logLevelInfo, logFormatText, logTargetAuto}, false, "level=INFO msg=info to=a\nlevel=WARN msg=warn g.time=1\nlevel=ERROR msg=error\n"},
		{logConfig{logLevelError, logFormatText, logTargetAuto}, false, "level=ERROR msg=error\n"},
		{logConfig{logLevelWarn, logFormatJSON, logTargetAuto}, false, `{"level":"WARN","msg":"warn","g":{"time":1}}` + "\n" + `{"level":"ERROR","msg":"error"}` + "\n"},
		{logConfig{logLevelDebug, logFormatText, logTargetAuto}, true, "time="},
	} {
		var b bytes.Buffer
		log := newLogger(&b, test.config, test.timestamps)
		log.Debug("debug")
		log.Info("info", "to", "a")
		log.Warn("warn", slog.Group("g", "time", 1))
		log.Error("error")
		got := b.String()
		if test.timestamps {
			if strings.Count(got, "\n") != 4 || strings.Count(got, "time=2") != 4 || !strings.HasPrefix(got, test.want) {
				t.Errorf("%v: got %s", test.config, got)
			}
		} else if got != test.want {
			t.Errorf("%v: got %s, want %s", test.config, got, test.want)
		}
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for text, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
		"":                                     false,
		"x":                                    false,
	} {
		if got := isJournal(text, f); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
