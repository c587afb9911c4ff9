package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// The bar says how far it is, and is drawn ten times a second at most.
func TestProgressBar(t *testing.T) {
	clock := newTestClock()
	var out bytes.Buffer
	b := &progressBar{out: &out, what: "users", total: 200, clock: clock.time, begin: clock.now}
	b.set(1, 0)
	b.set(2, 0) // too early
	clock.now = clock.now.Add(10 * time.Second)
	b.set(100, 3)
	b.set(200, 3)
	b.clear()
	b.clear()
	want := "\r[..............................]   0%  1 of 200 users\x1b[K" +
		"\r[###############...............]  50%  100 of 200 users, 3 failed, 10s left\x1b[K" +
		"\r[##############################] 100%  200 of 200 users, 3 failed\x1b[K\r\x1b[K"
	if got := out.String(); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	if b := newProgressBar(io.Discard, "users", 1); b != nil {
		t.Error("a bar where there is no terminal")
	}
	var none *progressBar
	none.set(1, 0)
	none.clear()
	if got := (&progressBar{total: 0}).line(0, clock.now); !strings.Contains(got, "100%") {
		t.Error(got)
	}
}

// lookupOnly is a database that cannot name its users.
type lookupOnly struct{ userdb.Any }

// Where a database cannot list, that is said, and the others are done.
func TestQuotaOfAll(t *testing.T) {
	_, config := explainSite(t)
	c, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := buildAgent(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	agent.Users = append(agent.Users.(userdb.Chain), userdb.Entry{Database: lookupOnly{}})
	var errOut bytes.Buffer
	q := &quotaRun{err: &errOut, agent: agent}
	list := q.everybody(context.Background())
	if len(list) != 5 || list[0].String() != "ann@example.org" || q.code != exitUnavailable || !strings.Contains(errOut.String(), "any: cannot list its users: name its mailboxes as addresses") {
		t.Errorf("%v, %d, %s", list, q.code, errOut.String())
	}
	agent.Users = lookupOnly{}
	if list := q.everybody(context.Background()); len(list) != 0 {
		t.Error(list)
	}
}

// Root does not write as root where the mail belongs to somebody.
func TestMailboxesAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir, config := explainSite(t)
	c, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	m := newMailboxes(c, config, dir+"/proc")
	target := maildir.Target{Root: dir + "/home/ann", Path: "Maildir"}
	if _, got, err := m.as(target); err != nil || got.Owner != nil {
		t.Errorf("root's own: %+v, %v", got.Owner, err)
	}
	if err := os.Chown(dir+"/home/ann/Maildir", 64101, 64201); err != nil {
		t.Fatal(err)
	}
	if w, got, err := m.as(target); err != nil || got.Owner == nil || got.Owner.UID != 64101 || got.Owner.GID != 64201 || w.MinUID != 1 {
		t.Errorf("somebody's: %+v, %v", got.Owner, err)
	}
	target.Owner = &maildir.Owner{UID: 7, GID: 7}
	if w, got, _ := m.as(target); got.Owner.UID != 7 || w != m.writer {
		t.Errorf("an owner by record: %+v", got.Owner)
	}
}
