package delivery

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Copies of one owner are one file, whose header names no recipient; a copy that is
// alone has the header that it always has.
func TestSingleInstance(t *testing.T) {
	s := newSite(t, "bob", "eve", "max")
	s.agent.SingleInstance = true
	s.agent.Quota = &QuotaPolicy{}
	s.start(t)
	c := s.client(t)
	const message = "Subject: x\r\n\r\nbody\r\n"
	to := []string{"bob@example.org", "eve@example.org", "bob@example.org", "max+x@example.org"}
	wantReplies(t, c.Send("ann@example.org", to, message, 4), "250 2.0.0", "250 2.0.0", "250 2.0.0", "250 2.0.0")
	want := regexp.MustCompile(`\AReturn-Path: <ann@example\.org>` + "\nReceived: from client\\.example\\.org\n\tby mx\\.example\\.org \\(lmtpd\\) with LMTP" +
		` id [0-9a-z]+-[0-9a-z]+;` + "\n\t" + datePattern + "\nSubject: x\n\nbody\n\\z")
	var infos []os.FileInfo
	for _, user := range []string{"bob", "eve", "max"} {
		infos = append(infos, onlyFile(t, s.maildir(user)+"/new"))
		if stored := read(t, s.maildir(user)); len(stored) != 1 || !want.MatchString(stored[0]) {
			t.Errorf("%s has %q", user, stored)
		}
	}
	if !os.SameFile(infos[0], infos[1]) || !os.SameFile(infos[1], infos[2]) {
		t.Error("no shared file")
	}
	if infos[0].Name() == infos[1].Name() {
		t.Error("two copies have one name")
	}
	// A copy that comes back is refused one round later.
	shared := strings.ReplaceAll(readOne(t, s.maildir("bob")), "\n", "\r\n")
	wantReplies(t, c.Send("", []string{"bob@example.org"}, shared, 1), "250 2.0.0")
	for _, text := range read(t, s.maildir("bob")) {
		if strings.Contains(text, "Delivered-To: bob@example.org\n") {
			wantReplies(t, c.Send("", []string{"bob@example.org", "eve@example.org"}, strings.ReplaceAll(text, "\n", "\r\n"), 2), "554 5.4.6", "250 2.0.0")
		}
	}
	if n := len(read(t, s.maildir("eve"))); n != 2 {
		t.Errorf("eve has %d messages", n)
	}
}

func onlyFile(t testing.TB, dir string) os.FileInfo {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	info, err := list[0].Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Only copies with the same owner share, and each owner has a header of its own only
// where he has a single copy.
func TestShareByOwner(t *testing.T) {
	ann, also, bob := &maildir.Owner{UID: 1, GID: 2}, &maildir.Owner{UID: 1, GID: 2}, &maildir.Owner{UID: 2, GID: 2}
	group := &maildir.Owner{UID: 1, GID: 2, Groups: []uint32{3}}
	own := []byte("own\n")
	targets := []maildir.Target{
		{Owner: bob, Header: own}, {Owner: ann, Header: own}, {Header: own}, {Owner: also, Header: own}, {Owner: group, Header: own}, {Header: own},
	}
	a := &Agent{}
	a.share(&message{from: "x"}, targets, a.Trace.now())
	for i, want := range []bool{false, true, true, true, false, true} {
		if targets[i].Share != want || (string(targets[i].Header) == "own\n") == want {
			t.Errorf("target %d: shared %t, header %q", i, targets[i].Share, targets[i].Header)
		}
	}
}
