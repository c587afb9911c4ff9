package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	gomaildir "github.com/emersion/go-maildir"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
	"github.com/lmtpd/lmtpd/userdb"
)

// site is a whole delivery agent in this process: servers for LMTP and SMTP, users
// with homes, the real writer.
type site struct {
	agent  *Agent
	writer *maildir.Writer
	dir    string // everything is below it
	state  string
	lmtp   *protocoltest.Server
	smtp   *protocoltest.Server
	limits protocol.Limits

	told     chan bool // if not nil: what is known about replies, once it is
	log      lockedBuffer
	mu       sync.Mutex
	outcomes []Outcome
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// memoryDir is a directory of the test, in memory where there is such a place.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "delivery-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newSite makes an agent whose users, of example.org, have homes. Change its
// fields before start.
func newSite(t testing.TB, users ...string) *site {
	t.Helper()
	return newSiteIn(t, memoryDir(t), users...)
}

// newSiteIn is newSite in a directory that may have one already.
func newSiteIn(t testing.TB, dir string, users ...string) *site {
	t.Helper()
	s := &site{dir: dir, limits: protocol.Limits{MessageSize: 64 << 20}}
	s.state = filepath.Join(s.dir, "state")
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	file.WriteString("nobody@unused.example::::::\n") // the file must not be empty
	for _, u := range users {
		if err := os.MkdirAll(s.home(u), 0o700); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "%s@example.org:::::%s::\n", u, s.home(u))
	}
	s.users(t, file.String())
	location, err := ParseLocation("~/Maildir")
	if err != nil {
		t.Fatal(err)
	}
	s.writer = &maildir.Writer{Hostname: "mx.example.org"}
	s.agent = &Agent{
		Rules:       userdb.Rules{Delimiter: "+", FoldCase: true},
		Mailbox:     location,
		Writer:      s.writer,
		Spool:       Spool{Dir: s.state},
		Trace:       TraceOptions{Hostname: "mx.example.org"},
		Folders:     Folders{Detail: true},
		LoopCheck:   true,
		MaxReceived: 30,
		Log:         slog.New(slog.NewTextHandler(&s.log, nil)),
		Report: func(o Outcome) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.outcomes = append(s.outcomes, o)
		},
	}
	s.agent.Users = s.passwd(t)
	return s
}

func (s *site) home(user string) string    { return filepath.Join(s.dir, "home", user) }
func (s *site) maildir(user string) string { return filepath.Join(s.home(user), "Maildir") }

func (s *site) users(t testing.TB, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "users"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *site) passwd(t testing.TB) *userdb.PasswdFile {
	t.Helper()
	db, err := userdb.NewPasswdFile(filepath.Join(s.dir, "users"), userdb.PasswdFileOptions{FoldCase: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func (s *site) start(t testing.TB) *site {
	t.Helper()
	make := func(mode protocol.Mode) *protocoltest.Server {
		srv := protocoltest.NewUnstartedServer(mode, s.agent)
		srv.Config.Policy = protocol.Policy{Rcpt: s.agent.Rcpt, Replied: s.replied}
		srv.Config.Limits = s.limits
		srv.Config.Newlines = protocol.NewlinesPreserve
		srv.Config.Log = s.agent.Log
		t.Cleanup(srv.Close)
		return srv
	}
	s.lmtp, s.smtp = make(protocol.LMTP), make(protocol.SMTP)
	s.lmtp.StartUnix()
	s.smtp.Start()
	return s
}

func (s *site) replied(ctx context.Context, tx *protocol.Transaction, seen bool) {
	s.agent.Replied(ctx, tx, seen)
	if s.told != nil {
		s.told <- seen
	}
}

// client is a new LMTP session that has said hello.
func (s *site) client(t testing.TB) *protocoltest.Client {
	t.Helper()
	c := s.lmtp.Dial(t)
	c.Hello("LHLO")
	return c
}

func (s *site) smtpClient(t testing.TB) *protocoltest.Client {
	t.Helper()
	c := s.smtp.Dial(t)
	c.Hello("EHLO")
	return c
}

func (s *site) reported() []Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.outcomes)
}

// read gives the messages of a Maildir as an independent reader finds them, in the
// order of their names.
func read(t testing.TB, dir string) (messages []string) {
	t.Helper()
	d := gomaildir.Dir(dir)
	if _, err := d.Unseen(); err != nil { // moves new/ to cur/
		t.Fatal(err)
	}
	all, err := d.Messages()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		r, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, string(b))
	}
	return messages
}

// readOne is read for a Maildir that holds one message, which it removes.
func readOne(t testing.TB, dir string) string {
	t.Helper()
	messages := read(t, dir)
	if len(messages) != 1 {
		t.Fatalf("%d messages in %s, want one", len(messages), dir)
	}
	all, err := gomaildir.Dir(dir).Messages()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if err := m.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	return messages[0]
}

const datePattern = `[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [-+]\d{4}`

// trace is what has to stand before a message.
type trace struct{ from, orig, to, with string }

// strip checks the trace header of a stored message and gives what follows it.
func (tr trace) strip(t testing.TB, stored string) string {
	t.Helper()
	if tr.with == "" {
		tr.with = "LMTP"
	}
	q := regexp.QuoteMeta
	p := `\AReturn-Path: <` + q(tr.from) + ">\n"
	if tr.orig != "" {
		p += "X-Original-To: " + q(tr.orig) + "\n"
	}
	client := `client\.example\.org`
	if strings.HasSuffix(tr.with, "SMTP") {
		client += ` \(\[127\.0\.0\.1\]\)`
	}
	p += "Delivered-To: " + q(tr.to) + "\nReceived: from " + client + "\n\tby mx\\.example\\.org \\(lmtpd\\) with " +
		q(tr.with) + ` id [0-9a-z]+-[0-9a-z]+` + "\n\tfor <" + q(tr.to) + ">; " + datePattern + "\n"
	head := regexp.MustCompile(p).FindString(stored)
	if head == "" {
		t.Errorf("trace header is not %s\nbut %.600q", p, stored)
		return stored
	}
	return stored[len(head):]
}

// files lists everything below dir but directories, and the state directory.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && d.Name() != "users" && d.Name() != "redelivery" {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func wantReplies(t testing.TB, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d replies %q, want %d", len(got), got, len(want))
	}
	for i := range got {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("reply %d is %q, want %q", i, got[i], want[i])
		}
	}
}
