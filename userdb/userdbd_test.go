package userdb

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// fakeUserdbd serves Varlink on a socket: answer gets the method without its interface, the name that is asked for, and
// gives the octets to send. "hang" is never answered.
func fakeUserdbd(t *testing.T, answer func(method, name string) string) *System {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				data, err := in.ReadBytes(0)
				if err != nil {
					return
				}
				var q struct {
					Method     string
					More       bool
					Parameters struct{ UserName, GroupName, Service string }
				}
				if err := json.Unmarshal(data[:len(data)-1], &q); err != nil || q.Parameters.Service != "io.systemd.Multiplexer" {
					t.Errorf("request %q: %v", data, err)
					return
				}
				method, _ := strings.CutPrefix(q.Method, "io.systemd.UserDatabase.")
				if q.More != (method == "GetMemberships" || q.Parameters.UserName+q.Parameters.GroupName == "") {
					t.Errorf("request %q: more", data)
				}
				out := answer(method, q.Parameters.UserName+q.Parameters.GroupName)
				if out == "hang" {
					in.ReadByte() // until the client has gone
					return
				}
				fmt.Fprint(conn, strings.ReplaceAll(out, `\0`, "\x00"))
			}()
		}
	}()
	return &System{Socket: socket, NSSwitch: nowhere(t), Getent: nowhere(t)}
}

const varlinkNone = `{"error":"io.systemd.UserDatabase.NoRecordFound","parameters":{}}\0`

// bobRecord answers for bob, who is in the groups lists, gone and root.
func bobRecord(method, name string) string {
	switch method + " " + name {
	case "GetUserRecord bob":
		return `{"parameters":{"record":{"userName":"bob","uid":2001,"gid":2002,"homeDirectory":"/home/bob","shell":"/bin/sh"},"incomplete":true}}\0`
	case "GetMemberships bob":
		return `{"parameters":{"userName":"bob","groupName":"lists"},"continues":true}\0{"parameters":{"userName":"bob","groupName":"gone"},"continues":true}\0` +
			`{"parameters":{"userName":"bob","groupName":"root"}}\0`
	case "GetGroupRecord lists":
		return `{"parameters":{"record":{"groupName":"lists","gid":2100}}}\0`
	case "GetGroupRecord root":
		return `{"parameters":{"record":{"groupName":"root","gid":0}}}\0`
	}
	return varlinkNone
}

func TestUserdbd(t *testing.T) {
	s := fakeUserdbd(t, bobRecord)
	want := &User{Name: "bob", Owner: &Owner{UID: 2001, GID: 2002, Groups: []uint32{2100}}, Home: "/home/bob", Source: "system"}
	if u, err := ask(t, s, "bob"); err != nil || !reflect.DeepEqual(u, want) {
		t.Errorf("%+v, %v; want %+v", u, err, want)
	}
	if _, err := ask(t, s, "ann"); !errors.Is(err, ErrNoSuchUser) {
		t.Errorf("ann: %v", err)
	}
	s.NSSwitch = place(t, "nsswitch.conf", "passwd: files ldap\n", 0o600)
	if _, err := ask(t, s, "ann"); err == nil || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("with a remote name service: %v", err)
	}
}

// TestUserdbdBinding: what systemd-homed stores for this machine wins; gid defaults to uid.
func TestUserdbdBinding(t *testing.T) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		t.Skip("this machine has no id: ", err)
	}
	s := fakeUserdbd(t, func(method, name string) string {
		if method != "GetUserRecord" {
			return varlinkNone
		}
		return fmt.Sprintf(`{"parameters":{"record":{"userName":"robert","aliases":["bob"],"homeDirectory":"/x",`+
			`"binding":{"0123":{"uid":5},"%s":{"uid":60001,"homeDirectory":"/home/bob"}}}}}\0`, strings.TrimSpace(string(id)))
	})
	u, err := ask(t, s, "bob")
	if err != nil || u.Name != "robert" || u.Owner.UID != 60001 || u.Home != "/home/bob" {
		t.Errorf("%+v, %v", u, err)
	}
	s = fakeUserdbd(t, func(method, name string) string {
		if method != "GetUserRecord" {
			return varlinkNone
		}
		return `{"parameters":{"record":{"userName":"bob","uid":2001}}}\0`
	})
	if u, err := ask(t, s, "bob"); err != nil || u.Owner.GID != 2001 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestUserdbdProtocol(t *testing.T) {
	long := strings.Repeat("x", maxAnswer)
	for _, c := range []struct {
		name, method, answer string
		permanent            bool
		text                 string
	}{
		{"none", "GetUserRecord", varlinkNone, true, ""},
		{"impossible name", "GetUserRecord", `{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"userName"}}\0`, true, ""},
		{"bad request", "GetUserRecord", `{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"service"}}\0`, false, "InvalidParameter"},
		{"down", "GetUserRecord", `{"error":"io.systemd.UserDatabase.ServiceNotAvailable","parameters":{}}\0`, false, "ServiceNotAvailable"},
		{"bad service", "GetUserRecord", `{"error":"io.systemd.UserDatabase.BadService"}\0`, false, "BadService"},
		{"conflict", "GetUserRecord", `{"error":"io.systemd.UserDatabase.ConflictingRecordFound"}\0`, false, "Conflicting"},
		{"closed", "GetUserRecord", ``, false, "cut short after 0 octets"},
		{"cut short", "GetUserRecord", `{"parameters":{"record":{"userName":"bob"`, false, "cut short after 41 octets"},
		{"no end", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":2001}}}`, false, "cut short"},
		{"empty", "GetUserRecord", `\0`, false, "not what it should be"},
		{"no JSON", "GetUserRecord", `hello\0`, false, "not what it should be"},
		{"wrong type", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":"2001"}}}\0`, false, "not what it should be"},
		{"negative uid", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":-1}}}\0`, false, "not what it should be"},
		{"big uid", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":4294967296}}}\0`, false, "not what it should be"},
		{"too long", "GetUserRecord", `{"parameters":{"record":{"userName":"` + long, false, "longer than"},
		{"no record", "GetUserRecord", `{"parameters":{}}\0`, false, "no record"},
		{"no uid", "GetUserRecord", `{"parameters":{"record":{"userName":"bob"}}}\0`, false, "no uid"},
		{"another", "GetUserRecord", `{"parameters":{"record":{"userName":"ann","uid":2001}}}\0`, false, `answered for "ann"`},
		{"several", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":2001}},"continues":true}\0`, false, "more than one reply"},
		{"root", "GetUserRecord", `{"parameters":{"record":{"userName":"bob","uid":0}}}\0`, true, ""},
		{"memberships down", "GetMemberships", `{"error":"io.systemd.UserDatabase.ServiceNotAvailable"}\0`, false, "groups of bob"},
		{"memberships cut short", "GetMemberships", `{"parameters":{"groupName":"lists"},"continues":true}\0`, false, "cut short"},
		{"group down", "GetGroupRecord", `{"error":"io.systemd.UserDatabase.ServiceNotAvailable"}\0`, false, "groups of bob"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fakeUserdbd(t, func(method, name string) string {
				if method == c.method {
					return c.answer
				}
				return bobRecord(method, name)
			})
			u, err := ask(t, s, "bob")
			if u != nil || err == nil || errors.Is(err, ErrNoSuchUser) != c.permanent || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v, %v; want %q", u, err, c.text)
			}
		})
	}
}

// TestUserdbdUnreachable: a socket that nobody serves is a failure, not a reason to ask somebody who knows fewer accounts.
func TestUserdbdUnreachable(t *testing.T) {
	s := scripted(t, "exit 2")
	s.Socket = filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := ask(t, s, "bob"); err == nil || errors.Is(err, ErrNoSuchUser) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
	s.Socket = place(t, "file", "", 0o600)
	if _, err := ask(t, s, "bob"); err == nil || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("a file in place of the socket: %v", err)
	}
}

func TestUserdbdHangs(t *testing.T) {
	asked := make(chan struct{}, 1)
	s := fakeUserdbd(t, func(method, name string) string { asked <- struct{}{}; return "hang" })
	ctx, cancel := contextWithCause(t)
	failed := make(chan error, 1)
	go func() {
		_, err := s.Lookup(ctx, Address{Local: "bob"})
		failed <- err
	}()
	<-asked
	why := errors.New("the client has gone")
	cancel(why)
	if err := <-failed; !errors.Is(err, why) || errors.Is(err, ErrNoSuchUser) {
		t.Errorf("%v", err)
	}
}

// FuzzVarlink: whatever the socket says, it is an error or a reply that can be used.
func FuzzVarlink(f *testing.F) {
	for _, s := range []string{`{"parameters":{"record":{"userName":"bob","uid":2001}}}`, `{"error":"x"}`, `{"continues":true}`, `{}`, `[]`, `nul`, "",
		`{"parameters":{"record":{"binding":{"a":{"uid":1,"binding":{"b":{}}}}}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(data)+"\x00"), 16)
		msg, err := readVarlink(in)
		if err != nil {
			if len(data) <= maxAnswer-1 {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		r, err := parseVarlink(msg)
		if err != nil && strings.ContainsAny(err.Error(), "\x00\r\n") {
			t.Fatalf("%q: %q", data, err)
		}
		_ = r
	})
}
