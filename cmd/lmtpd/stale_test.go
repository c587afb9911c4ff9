package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// clean_tmp is on by default and can be turned off; what is removed is one line.
func TestCleanTmp(t *testing.T) {
	var log bytes.Buffer
	l := slog.New(slog.NewTextHandler(&log, nil))
	for text, want := range map[string]bool{"": true, "[mailbox]\nclean_tmp = false\n": false} {
		agent, err := buildAgent(loadText(t, text), l)
		if err != nil {
			t.Fatal(err)
		}
		w := agent.Writer.(*maildir.Writer)
		if w.RemoveStale != want {
			t.Errorf("%q: %t", text, w.RemoveStale)
		}
		w.Stale(maildir.Stale{Dir: "/home/bob/Maildir/tmp", Removed: 3})
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `msg="stale files removed" dir=/home/bob/Maildir/tmp removed=3`) {
		t.Error(got)
	}
}
