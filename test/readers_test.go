package test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-maildir"
)

// A pass is one look of a mailbox reader: all messages that it sees, one after the
// other. That of a reader which keeps its session open has only what it has not shown
// before.
type pass func(t *testing.T) []byte

// readers are programs that read a Maildir, each with what makes its passes over the
// mailbox of a user. All but imap move messages to cur/ on their way.
var readers = []struct {
	name     string
	session  bool // shows each message once
	programs []string
	open     func(t *testing.T, s *readerSite, user string) pass
}{
	{"Dovecot's IMAP", true, nil, openIMAP},
	{"Python's mailbox", false, []string{"/usr/bin/python3"}, openPythonMailbox},
	{"mutt", false, []string{"mutt", "script"}, openMutt},
	{"mblaze", false, []string{"mlist", "minc", "mexport"}, openMblaze},
	{"notmuch", false, []string{"notmuch"}, openNotmuch},
	{"mbsync, the Maildir", false, []string{"mbsync"}, openMbsyncMaildir},
	{"mbsync, IMAP", false, []string{"mbsync"}, openMbsyncIMAP},
}

type readerSite struct {
	*plainSite
	dovecot *dovecot
}

// TestReaders: while messages come in, each reader sees every one that has been
// acknowledged, whole and once, and none that it moves to cur/ is lost or doubled. On
// the last mailbox all of them work.
func TestReaders(t *testing.T) {
	t.Parallel()
	var users []string
	for i := range len(readers) + 1 {
		users = append(users, fmt.Sprint("reader", i))
	}
	s := &readerSite{plainSite: startReadSite(t, "", users...)}
	s.dovecot = startDovecot(t, s.plainSite)
	t.Run("each", func(t *testing.T) {
		for i, r := range readers {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				need(t, r.programs...)
				w := &watch{name: r.name, session: r.session, pass: r.open(t, s, users[i]), seen: make(map[int]int)}
				readDuringFlow(t, s, users[i], 4, w)
			})
		}
		t.Run("all", func(t *testing.T) {
			t.Parallel()
			var all []*watch
			user := users[len(readers)]
			for _, r := range readers {
				need(t, r.programs...)
				all = append(all, &watch{name: r.name, session: r.session, pass: r.open(t, s, user), seen: make(map[int]int)})
			}
			readDuringFlow(t, s, user, 1, all...)
		})
	})
	s.stop(t)
}

// watch is a reader at work.
type watch struct {
	name    string
	session bool
	pass    pass
	seen    map[int]int // how often each message was seen, by a session in all its passes
}

// look makes a pass and compares it with the messages that must be there by now.
func (w *watch) look(t *testing.T, due []int) {
	t.Helper()
	found := wholeMessages(t, w.pass(t))
	if w.session {
		for n, times := range found {
			w.seen[n] += times
		}
	} else {
		w.seen = found
	}
	for n, times := range w.seen {
		if times != 1 {
			t.Fatalf("%s sees message %d %d times", w.name, n, times)
		}
	}
	for _, n := range due {
		if w.seen[n] == 0 {
			t.Fatalf("%s does not see message %d, which has been acknowledged; it sees %d of %d", w.name, n, len(w.seen), len(due))
		}
	}
}

const perPass = 100 // messages that come in

// readDuringFlow has readers take turns at a mailbox while messages come in, and once
// more when all are there.
func readDuringFlow(t *testing.T, s *readerSite, user string, passes int, readers ...*watch) {
	t.Helper()
	asTheyCome := watchNewMail(t, s.maildir(user))
	l := startFlow(t, s.sock, user+"@example.org")
	l.grant(1)
	<-l.first // mutt has other keys for an empty mailbox
	for range passes {
		for _, w := range readers {
			due := l.acknowledged(t)
			l.grant(perPass)
			w.look(t, due)
		}
	}
	l.end()
	<-l.over
	asTheyCome.end(t)
	due := l.acknowledged(t)
	for _, w := range readers {
		w.look(t, due)
		if len(w.seen) != len(due) || len(due) != 1+passes*perPass*len(readers) {
			t.Errorf("%s sees %d messages, %d have been acknowledged", w.name, len(w.seen), len(due))
		}
	}
	// And what is there in the end, without any of them.
	files, err := filepath.Glob(s.maildir(user) + "/[cn][ue][rw]/*")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, name := range files {
		text.WriteString(readFile(t, name))
	}
	last := &watch{name: "ls", pass: func(*testing.T) []byte { return text.Bytes() }}
	if last.look(t, due); len(last.seen) != len(due) || len(files) != len(due) {
		t.Errorf("%d files, %d messages, of %d", len(files), len(last.seen), len(due))
	}
}

// asReader is a command run by the owner of the mail, at home in a directory of its own.
func asReader(t *testing.T, home, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = patience
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "TERM=xterm", "LC_ALL=C.UTF-8", "MAILDOT="+home, "NOTMUCH_CONFIG="+filepath.Join(home, "notmuch.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: mailOwner, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// output runs a reader to its end.
func output(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%.2000s%s", cmd, err, out, &stderr)
	}
	return out
}

// readerHome is a directory for a reader's own files.
func readerHome(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	mkdir(t, dir, mailOwner)
	return dir
}

func openIMAP(t *testing.T, s *readerSite, user string) pass {
	python := need(t, "/usr/bin/python3")[0]
	script, err := filepath.Abs("testdata/imap.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, script, s.dovecot.host, s.dovecot.port, user+"@example.org")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("%v: %s", err, &stderr)
		}
	})
	in := bufio.NewReader(stdout)
	return func(t *testing.T) []byte {
		t.Helper()
		if _, err := io.WriteString(stdin, "\n"); err != nil {
			t.Fatal(err)
		}
		var all bytes.Buffer
		for {
			line, err := in.ReadBytes('\n')
			if err != nil {
				cmd.Process.Kill()
				t.Fatalf("the IMAP session ended: %v, %s", err, &stderr)
			}
			if string(line) == "X-Number: end\n" {
				return all.Bytes()
			}
			all.Write(line)
		}
	}
}

func openPythonMailbox(t *testing.T, s *readerSite, user string) pass {
	home := readerHome(t)
	script := readFile(t, "testdata/mailbox.py")
	return func(t *testing.T) []byte {
		return output(t, asReader(t, home, "/usr/bin/python3", "-c", script, s.maildir(user)))
	}
}

// openMutt has mutt pipe all messages to a file. It moves what it has shown to cur/
// as it leaves.
func openMutt(t *testing.T, s *readerSite, user string) pass {
	home := readerHome(t)
	// A question that it asks would take the first of the keys for its answer.
	writeFile(t, filepath.Join(home, "muttrc"), `set mbox_type=Maildir
set folder=.
set pipe_decode=no
set pipe_split=no
set mark_old=yes
set move=no
set wait_key=no
set quit=yes
set delete=no
`)
	return func(t *testing.T) []byte {
		out := filepath.Join(home, "out")
		os.Remove(out)
		// It wants a terminal.
		keys := "<tag-pattern>~A<enter><tag-prefix><pipe-message>cat >out<enter>"
		// It stays if a message comes as it leaves.
		keys += strings.Repeat("<quit>", 30) + "<exit>"
		command := fmt.Sprintf(`mutt -n -F muttrc -f '%s' -e 'push "%s"'`, s.maildir(user), keys)
		cmd := asReader(t, home, "script", "-qec", command, "/dev/null")
		if _, err := cmd.StdinPipe(); err != nil { // the end of input would be a key too
			t.Fatal(err)
		}
		output(t, cmd)
		text, err := os.ReadFile(out)
		if err != nil && !os.IsNotExist(err) { // there was no message
			t.Fatal(err)
		}
		return text
	}
}

func openMblaze(t *testing.T, s *readerSite, user string) pass {
	home := readerHome(t)
	return func(t *testing.T) []byte {
		return output(t, asReader(t, home, "sh", "-euc", `minc -q "$1" && mlist "$1" | mexport`, "sh", s.maildir(user)))
	}
}

// openNotmuch marks messages as read, which moves them to cur/.
func openNotmuch(t *testing.T, s *readerSite, user string) pass {
	home := readerHome(t)
	mkdir(t, filepath.Join(home, "notmuch"), mailOwner)
	writeFile(t, filepath.Join(home, "notmuch.conf"), fmt.Sprintf(`[database]
path=%s/notmuch
mail_root=%s
[user]
primary_email=%s@example.org
[new]
tags=unread;inbox
ignore=/.*[.](cache|index|log).*/;dovecot-uidlist;dovecot-uidvalidity;maildirsize
[maildir]
synchronize_flags=true
`, home, s.maildir(user), user))
	return func(t *testing.T) []byte {
		output(t, asReader(t, home, "notmuch", "new", "--quiet"))
		text := output(t, asReader(t, home, "notmuch", "show", "--format=mbox", "*"))
		output(t, asReader(t, home, "notmuch", "tag", "-unread", "--", "tag:unread"))
		return text
	}
}

// openMbsyncMaildir copies from the Maildir itself. With AltMap it gives no message
// another name: Dovecot would take it for another message.
func openMbsyncMaildir(t *testing.T, s *readerSite, user string) pass {
	return openMbsync(t, fmt.Sprintf("MaildirStore far\nInbox %s\nAltMap yes\n", s.maildir(user)))
}

func openMbsyncIMAP(t *testing.T, s *readerSite, user string) pass {
	return openMbsync(t, fmt.Sprintf(`IMAPAccount far
Host %s
Port %s
SSLType None
AuthMechs LOGIN
User %s@example.org
Pass secret

IMAPStore far
Account far
`, s.dovecot.host, s.dovecot.port, user))
}

// ownField is what mbsync adds to a message to find it again.
var ownField = regexp.MustCompile(`(?m)^X-TUID: .*\n`)

// openMbsync copies to a Maildir of its own and reads that.
func openMbsync(t *testing.T, far string) pass {
	home := readerHome(t)
	near := filepath.Join(home, "near")
	writeFile(t, filepath.Join(home, "mbsyncrc"), "FSync no\n\n"+far+fmt.Sprintf(`
MaildirStore near
Inbox %s

Channel all
Far :far:INBOX
Near :near:INBOX
Sync Pull
Create Near
SyncState %s/state
`, near, home))
	return func(t *testing.T) []byte {
		output(t, asReader(t, home, "mbsync", "-q", "-c", filepath.Join(home, "mbsyncrc"), "-a"))
		d := maildir.Dir(near)
		if _, err := d.Unseen(); err != nil {
			t.Fatal(err)
		}
		all, err := d.Messages()
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		for _, m := range all {
			text.WriteString(ownField.ReplaceAllString(readFile(t, m.Filename()), ""))
		}
		return text.Bytes()
	}
}
