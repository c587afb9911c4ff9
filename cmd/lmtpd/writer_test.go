package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lmtpd/lmtpd/confine"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/delivery/writer"
)

// writerDaemon is a writer process in this one, before it is confined.
func writerDaemon(t *testing.T, log *bytes.Buffer, inherited ...inheritedSocket) *daemon {
	t.Helper()
	l := slog.New(slog.NewTextHandler(log, nil))
	d := &daemon{log: l, listeners: newListeners(inherited, l), notify: &notifier{log: l}}
	t.Cleanup(d.listeners.close)
	return d
}

// shortDir is a directory whose sockets have short names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestWriterServes(t *testing.T) {
	dir := shortDir(t)
	home, path := filepath.Join(dir, "home"), filepath.Join(dir, "writer.sock")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(dir, "users")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 64101, 64201
		if err := os.Chown(home, uid, gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(users, fmt.Appendf(nil, "bob@example.org::%[1]d:%[2]d::%[3]s::\nher@example.org::%[1]d:%[2]d::%[3]s::userdb_host=192.0.2.1\n", uid, gid, home), 0o600); err != nil {
		t.Fatal(err)
	}
	c := loadText(t, fmt.Sprintf("[writer]\nsocket = %q\nfront_user = \"%d\"\n[[userdb]]\ntype = \"passwd-file\"\npath = %q\nminimum_uid = 1\n",
		path, os.Getuid(), users))
	var log bytes.Buffer
	d := writerDaemon(t, &log)
	if err := d.startWriter(c); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info, err)
	}
	client := &writer.Client{Address: path}
	defer client.Close()
	target := maildir.Target{
		Account: "bob@example.org", Owner: &maildir.Owner{UID: uint32(uid), GID: uint32(gid)}, Root: home, Path: "Maildir",
	}
	deliver := func(target maildir.Target) (res maildir.Result) {
		body := maildir.Body{Data: []byte("Subject: x\n\n"), Size: 12, Lines: 2}
		client.Deliver(t.Context(), body, []maildir.Target{target}, func(_ int, r maildir.Result) { res = r })
		return res
	}
	// A reload in between: the client's connection is to the former server.
	for range 2 {
		if r := deliver(target); r.Err != nil || !strings.HasPrefix(r.File, home+"/Maildir/new/") {
			t.Errorf("%+v", r)
		}
		if err := d.startWriter(c); err != nil {
			t.Fatal(err)
		}
	}
	// A host that the front has found to be this machine.
	hers := target
	hers.Account = "her@example.org"
	if r := deliver(hers); r.Err != nil {
		t.Errorf("a record with a host: %v", r.Err)
	}
	other := target
	other.Root = dir
	if r := deliver(other); r.Err == nil || !strings.Contains(r.Err.Error(), "path is not allowed") {
		t.Errorf("another root: %+v", r)
	}
	if n := d.counts.delivered.Load(); n != 3 || d.counts.deferred.Load() != 1 {
		t.Errorf("%d delivered, %d deferred", n, d.counts.deferred.Load())
	}
	// A user just added, whom a front that was reloaded knows.
	text, err := os.ReadFile(users)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, append(text, strings.NewReplacer("bob@", "new@", "her@", "his@").Replace(string(text))...), 0o600); err != nil {
		t.Fatal(err)
	}
	added := target
	added.Account = "new@example.org"
	if r := deliver(added); r.Err != nil {
		t.Errorf("a user just added: %v", r.Err)
	}
	d.listeners.close()
	d.current.shutdown(context.Background())
}

// What only the front reads may be missing, or be secret, for the writer.
func TestWriterNeedsNoFilesOfTheFront(t *testing.T) {
	dir := shortDir(t)
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := writerDaemon(t, &log)
	err := d.startWriter(loadText(t, fmt.Sprintf(`
[writer]
socket = "unix:%[1]s/w.sock"
front_user = "%[2]d"
[[userdb]]
type = "passwd-file"
path = "%[1]s/users"
[commands]
user = "nobody-here"
[delivery]
transport = "backend"
[[transport]]
name = "backend"
type = "relay"
tls = "required"
ca_file = "/nonexistent/ca.pem"
[[transport]]
type = "pipe"
command = ["/nonexistent/program"]
[[quota_warning]]
percent = 90
mail = "/nonexistent/text"
command = ["/nonexistent/program"]
`, dir, os.Getuid())))
	if err != nil {
		t.Fatal(err)
	}
	d.listeners.close()
	d.current.shutdown(context.Background())
}

func TestWriterRefusesToStart(t *testing.T) {
	dir := shortDir(t)
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := fmt.Sprintf("[[userdb]]\ntype = \"passwd-file\"\npath = %q\n", users)
	stream, err := net.Listen("unix", filepath.Join(dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	me := fmt.Sprintf("front_user = \"%d\"\n", os.Getuid())
	for text, want := range map[string]string{
		db + "[writer]\n" + me: `writer.socket: systemd passed no socket named "writer"; let systemd pass a socket with FileDescriptorName=writer and ListenSequentialPacket=`,
		db + "[writer]\nfront_user = \"nobody-here\"\nsocket = \"/run/x\"\n": `writer.front_user: there is no user "nobody-here"`,
		db + "[writer]\n" + me + "socket = \"/missing/directory/x\"\n":       "writer.socket: the directory /missing/directory does not exist",
	} {
		var log bytes.Buffer
		err := writerDaemon(t, &log).startWriter(loadText(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want %s", text, err, want)
		}
	}
	var log bytes.Buffer
	d := writerDaemon(t, &log, inheritedSocket{"writer", stream.(*net.UnixListener)})
	if err := d.startWriter(loadText(t, db+"[writer]\n"+me)); err == nil || !strings.Contains(err.Error(), "ListenSequentialPacket=") {
		t.Errorf("a stream socket: %v", err)
	}
	packets, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, "packets"), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = newListeners([]inheritedSocket{{"lmtp", packets}}, slog.New(slog.DiscardHandler)).prepare(loadText(t, ""))
	if err == nil || !strings.Contains(err.Error(), `pass it to "lmtpd writer"`) {
		t.Errorf("packets for LMTP: %v", err)
	}
}

// Root that serves system users without a writer is told what to do.
func TestWarnsRoot(t *testing.T) {
	var log bytes.Buffer
	d := writerDaemon(t, &log)
	c := loadText(t, "[[userdb]]\ntype = \"system\"\n")
	if d.writerOf(c) != nil {
		t.Error("a writer out of nothing")
	}
	if warned := strings.Contains(log.String(), "lmtpd writer"); warned != (os.Geteuid() == 0) {
		t.Errorf("log is %s", log.String())
	}
	log.Reset()
	c = loadText(t, "[[userdb]]\ntype = \"system\"\n[writer]\nsocket = \"/run/x\"\n")
	client := d.writerOf(c)
	if client == nil || client.Address != "/run/x" || log.Len() > 0 {
		t.Errorf("%+v, log %s", client, log.String())
	}
	d.useWriter(client)
	if d.writerOf(c) != client {
		t.Error("a reload makes a new client for the same socket")
	}
}

// What a confined process cannot reach any more is an error of the new configuration.
func TestStillAllowed(t *testing.T) {
	const first = "state_directory = \"/var/lib/lmtpd\"\n[writer]\nsocket = \"/run/lmtpd/writer.sock\"\n[[listen]]\naddress = \"/run/lmtpd/lmtp.sock\"\n"
	c := loadText(t, first)
	d := &daemon{confined: true}
	for _, n := range c.frontNeeds() {
		d.allowed = append(d.allowed, n.path)
	}
	if err := d.stillAllowed(c); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		strings.Replace(first, "/run/lmtpd/lmtp.sock", "/run/lmtpd/sub/lmtp.sock", 1):   "",
		strings.Replace(first, "/run/lmtpd/lmtp.sock", "/run/lmtpd-other/lmtp.sock", 1): "listen.address: /run/lmtpd-other was not needed",
		strings.Replace(first, "/var/lib/lmtpd", "/srv/state", 1):                       "state_directory: /srv/state was not needed",
		strings.Replace(first, "/run/lmtpd/writer.sock", "", 1):                         "writer.socket: is gone",
		first + "[[userdb]]\ntype = \"passwd-file\"\npath = \"/srv/users\"\n":           "userdb.path: /srv was not needed",
		first + "[metrics]\naddress = \"unix:/srv/metrics.sock\"\n":                     "metrics.address: /srv was not needed",
		first + "[status]\nsocket = \"/srv/status.sock\"\n":                             "status.socket: /srv was not needed",
	} {
		switch err := d.stillAllowed(loadText(t, text)); {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "systemctl restart")):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	d = &daemon{}
	if err := d.stillAllowed(loadText(t, "")); err != nil {
		t.Error(err)
	}
}

func TestNoHomeIsAllowed(t *testing.T) {
	c := loadText(t, "[[listen]]\naddress = \"/run/lmtpd/lmtp.sock\"\n")
	all := systemPaths
	for _, n := range c.frontNeeds() {
		all = append(all, n.path)
	}
	for _, home := range []string{"/home/bob", "/root", "/srv/mail", "/var/mail", "/var/vmail", "/tmp"} {
		for _, p := range all {
			if covers(p, confine.Path{Name: home}) && p.Name != "." {
				t.Errorf("the front may reach %s by %s", home, p.Name)
			}
		}
	}
	for _, n := range c.writerNeeds() {
		if n.path.Name == "/" && n.path.Access&confine.Execute != 0 {
			t.Error("the writer may execute what users have")
		}
	}
}
