package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pipeProgram is what the pipes of these tests run, by its second argument. It appends what
// it was given to DIR/out.
const pipeProgram = `#!/bin/sh
dir=$1 what=$2; shift 2
case $what in
take) { echo "args: $*; uid $(id -u)"; cat; } >>"$dir/out";;
refuse) cat >/dev/null; echo "5.7.9 not from $1"; exit 65;;
sleep) sleep 1000 & echo $! >"$dir/child"; wait;;
once) echo run >>"$dir/runs"; while [ ! -e "$dir/go" ]; do sleep 0.02; done; exit 0;;
esac
`

// TestPipe: programs take mail beside Maildirs, each message once.
func TestPipe(t *testing.T) {
	t.Parallel()
	needRoot(t, "run programs as another user")
	s := newRelaySite(t)
	out := filepath.Join(s.dir, "out")
	mkdir(t, out, &syscall.Credential{Uid: 1, Gid: 1})
	mkdir(t, s.home("user"), nil)
	program := filepath.Join(s.dir, "program")
	writeFile(t, program, pipeProgram)
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	users := fmt.Sprintf("user@example.org:::::%s::\n", s.home("user"))
	config := "[commands]\nuser = \"daemon\"\n"
	for _, what := range []string{"take", "refuse", "sleep", "once"} {
		users += fmt.Sprintf("%[1]s@example.org:::::::userdb_transport=%[1]s\n", what)
		config += fmt.Sprintf("[[transport]]\nname = %[1]q\ntype = \"pipe\"\ncommand = [%[2]q, %[3]q, %[1]q, \"--\", \"{sender}\", \"{detail}\", \"{queue_id}\"]\n", what, program, out)
		if what == "sleep" {
			config += "timeout = \"1s\"\n"
		}
	}
	writeFile(t, s.dir+"/users", users)
	s.start(t, "mx", s.dir+"/users", config)

	message := []byte("Received: from x by y (Postfix) id 4XyZ; date\r\n" + header + "\r\nfor a program\r\n")
	c := s.greeted(t)
	got := c.send(t, `-x$id`+"`id`@example.net", "", []string{"user@example.org", "\"take+$HOME; id\"@example.org", "refuse@example.org", "sleep@example.org", "user+x@example.org"}, message, 5)
	wantPrefixes(t, got, "250 2.0.0 OK ", "250 2.0.0 OK ", "554 5.7.9 Message was refused: not from --", "451 4.3.0 Delivery took too long", "250 2.0.0 OK ")
	text := readFile(t, out+"/out")
	if want := "args: -- -x$id`id`@example.net $HOME; id 4XyZ; uid 1\nReturn-Path: <-x$id`id`@example.net>\nDelivered-To: \"take+$HOME; id\"@example.org\nReceived: from "; !strings.HasPrefix(text, want) || !strings.HasSuffix(text, string(asStored(message))) {
		t.Errorf("%q", text)
	}
	if len(messages(t, s.maildir("user"))) != 2 {
		t.Error("the mailbox beside it")
	}
	child := atoi(t, strings.TrimSpace(readFile(t, out+"/child")))
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("the child of the program that was killed lives: %s", stat)
	}
	s.stderr.await(t, `to=sleep@example\.org.* transport=sleep target=\S+ .* status=deferred .* error=".*took too long`)

	// Killed before the program has ended: it is not known what became of the message,
	// so that it is run again. Once it has answered it is not, though the reply is lost.
	sendUnseen(t, s.plainSite, "once@example.org", message)
	awaitFile(t, out+"/runs", "run\n")
	s.signal(t, syscall.SIGKILL)
	s.wait(t)
	s.restart(t)
	sendUnseen(t, s.plainSite, "once@example.org", message)
	awaitFile(t, out+"/runs", "run\nrun\n")
	writeFile(t, out+"/go", "")
	s.stderr.await(t, `to=once@example\.org.* status=delivered .*again=false`)
	wantPrefixes(t, s.greeted(t).send(t, "sender@example.net", "", []string{"once@example.org"}, message, 1), "250 2.0.0 OK ")
	s.stderr.await(t, `to=once@example\.org.* status=delivered .*again=true`)
	if got := readFile(t, out+"/runs"); got != "run\nrun\n" {
		t.Errorf("%q", got)
	}
	s.stop(t)
}

// awaitFile waits until a file has this content.
func awaitFile(t *testing.T, name, content string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(name); err == nil && string(b) == content {
			return
		}
	}
	t.Fatalf("%s never was %q", name, content)
}

// TestPipeOfConfinedFront: beside a writer, a program writes where write_paths says and
// the front itself may, and nowhere else.
func TestPipeOfConfinedFront(t *testing.T) {
	t.Parallel()
	s := startTwoProcessesWith(t, func(dir string) string {
		for _, d := range []string{"bin", "out", "other"} {
			mkdir(t, filepath.Join(dir, d), mailUser(t))
		}
		writeFile(t, filepath.Join(dir, "bin", "program"), "#!/bin/sh\ncat >\"$1/out/message\"\nfor d in other home state bin; do echo x >\"$1/$d/x\" && echo written to $d; done 2>/dev/null\ngrep NoNewPrivs /proc/self/status\nexit 0\n")
		if err := os.Chmod(filepath.Join(dir, "bin", "program"), 0o755); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("[[transport]]\nname = \"tickets\"\ntype = \"pipe\"\ndomains = [\"tickets.example.org\"]\ncommand = [\"%[1]s/bin/program\", %[1]q]\nwrite_paths = [\"%[1]s/out\"]\n", dir)
	}, "lmtpd-ann")
	c := dial(t, s.lmtp)
	c.expect(t, "250", "LHLO client.example.net")
	message := []byte(header + "\r\nx\r\n")
	for _, r := range c.send(t, "", "", []string{"lmtpd-ann@tickets.example.org", "lmtpd-ann@example.org"}, message, 2) {
		if !strings.HasPrefix(r, "250 2.0.0 OK ") {
			t.Error(r)
		}
	}
	s.front.stderr.await(t, `msg="program said" .*text="written to state NoNewPrivs: 1"`)
	// The state directory is the front's own, and so is it the program's.
	for dir, want := range map[string]bool{"other": false, "home": false, "bin": false, "state": true} {
		if _, err := os.Stat(filepath.Join(s.dir, dir, "x")); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if got := readFile(t, filepath.Join(s.dir, "out", "message")); !strings.HasSuffix(got, string(asStored(message))) {
		t.Errorf("%q", got)
	}
	oneMessage(t, filepath.Join(s.acc.home("lmtpd-ann"), "Maildir"))
	s.front.stop(t)
	s.writer.stop(t)
}
