package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// fakeTransport answers as the test says, and remembers what it got.
type fakeTransport struct {
	deliver func(p *Parcel, done func(int, Handover))

	mu   sync.Mutex
	got  []*Parcel
	text []string
}

func (f *fakeTransport) Deliver(_ context.Context, p *Parcel, done func(int, Handover)) {
	b, err := io.ReadAll(p.Open())
	if err == nil && int64(len(b)) != p.Size {
		err = fmt.Errorf("%d octets, and Size is %d", len(b), p.Size)
	}
	f.mu.Lock()
	f.got, f.text = append(f.got, p), append(f.text, string(b))
	f.mu.Unlock()
	if f.deliver != nil && err == nil {
		f.deliver(p, done)
		return
	}
	for i := range p.Rcpts {
		done(i, Handover{Err: err, Target: "fake " + p.Host})
	}
}

func (f *fakeTransport) parcels() ([]*Parcel, []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got, f.text
}

// lastStop is a fakeTransport that is a final delivery.
type lastStop struct{ fakeTransport }

func (*lastStop) FinalDelivery() {}

// routed adds users with extra fields, and no home, to a site.
func routed(t *testing.T, s *site, fields map[string]string) {
	t.Helper()
	file, err := os.ReadFile(s.dir + "/users")
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	for user, extra := range fields {
		text += user + "@example.org:::::::" + extra + "\n"
	}
	s.users(t, text)
	s.agent.Users = s.passwd(t)
}

const hello2 = "Subject: hello\r\n\r\nHello.\r\n"

// Recipients with and without a Maildir in one transaction: each gets the reply that is
// its own, by index, and quotas and homes are asked of nobody who has none.
func TestTransportsBesideMaildirs(t *testing.T) {
	relay, last := &fakeTransport{}, &lastStop{}
	relay.deliver = func(p *Parcel, done func(int, Handover)) {
		for i := len(p.Rcpts) - 1; i >= 0; i-- {
			h := Handover{Target: "fake " + p.Host}
			if strings.HasPrefix(p.Rcpts[i].Address, "gone") {
				h.Reply, h.Err = protocol.Reply{Code: 550, Enhanced: protocol.Enhanced{5, 1, 1}, Text: "no such user there"}, errors.New("550")
			}
			done(i, h)
		}
	}
	s := newSite(t, "bob", "who")
	s.agent.Quota = &QuotaPolicy{Octets: 1 << 20}
	s.agent.Transports = Transports{Named: map[string]Transport{"away": relay, "last": last, "discard": Discard{}}, Hosts: "away"}
	routed(t, s, map[string]string{
		"far": "userdb_host=10.0.0.1", "far2": "userdb_host=10.0.0.1", "gone": "userdb_transport=away userdb_host=10.0.0.1",
		"third": "proxy=y host=10.0.0.3 port=2424 userdb_transport=away", "tickets": "userdb_transport=last",
		"trash": "userdb_transport=discard", "lost": "userdb_transport=nowhere",
	})
	s.start(t)
	c := s.client(t)
	c.Cmd("250", "MAIL FROM:<ann@example.net> BODY=8BITMIME SIZE=1000000")
	for _, r := range []string{"bob", "far", "gone", "far2", "tickets+x", "trash", "third", "who", "far"} {
		c.Cmd("250", "RCPT TO:<%s@example.org>", r)
	}
	c.Cmd("451 4.3.5 Recipient is misconfigured", "RCPT TO:<lost@example.org>")
	c.Cmd("354", "DATA")
	c.Raw(hello2 + ".\r\n")
	var replies []string
	for range 9 {
		replies = append(replies, c.Reply())
	}
	wantReplies(t, replies, "250 2.0.0 OK", "250 2.0.0 OK", "550 5.1.1 no such user there", "250 2.0.0 OK", "250 2.0.0 OK",
		"250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK", "250 2.0.0 OK")
	read(t, s.maildir("bob"))
	read(t, s.maildir("who"))

	parcels, texts := relay.parcels()
	if len(parcels) != 2 {
		t.Fatalf("%d parcels", len(parcels))
	}
	relayed := regexp.MustCompile(`\AReceived: from client\.example\.org\n\tby mx\.example\.org \(lmtpd relay\) with LMTP id \S+;\n\t` + datePattern + `\nSubject: hello\n\nHello\.\n\z`)
	for i, p := range parcels {
		if !relayed.MatchString(texts[i]) {
			t.Errorf("%q", texts[i])
		}
		if p.Mail.Body != protocol.Body8BitMIME || p.From != "ann@example.net" {
			t.Errorf("%+v", p)
		}
		if p.Host == "10.0.0.1" && (len(p.Rcpts) != 3 || p.Rcpts[2].Address != "far2@example.org") ||
			p.Host != "10.0.0.1" && (p.Host != "10.0.0.3:2424" || len(p.Rcpts) != 1) {
			t.Errorf("%q for %v", p.Host, p.Rcpts)
		}
	}
	parcels, texts = last.parcels()
	if len(parcels) != 1 || parcels[0].Rcpts[0].Parts.Detail != "x" {
		t.Fatal(parcels)
	}
	if got := (trace{from: "ann@example.net", to: "tickets+x@example.org"}).strip(t, texts[0]); got != "Subject: hello\n\nHello.\n" {
		t.Errorf("%q", got)
	}
	want := map[string]string{"far@": "away", "gone@": "away", "trash@": "discard", "tickets": "last", "bob": "maildir", "lost": ""}
	for _, o := range s.reported() {
		for prefix, name := range want {
			if strings.HasPrefix(o.To, prefix) && o.Transport != name {
				t.Errorf("%s: %q", o.To, o.Transport)
			}
		}
		if strings.HasPrefix(o.To, "lost") && !strings.Contains(o.Err.Error(), `user "lost@example.org" of passwd-file `+s.dir+`/users: transport "nowhere" is not configured`) {
			t.Error(o.Err)
		}
	}
	if log := s.log.String(); !strings.Contains(log, `transport=away target="fake 10.0.0.1" size=`) {
		t.Error(log)
	}
}

// A recipient that is slow elsewhere holds up neither the Maildirs before it nor
// those behind it, but for the order of the replies.
func TestSlowTransportHoldsNobodyUp(t *testing.T) {
	release := make(chan bool)
	slow := &fakeTransport{deliver: func(_ *Parcel, done func(int, Handover)) {
		<-release
		done(0, Handover{})
	}}
	s := newSite(t, "bob", "who")
	s.agent.Transports = Transports{Named: map[string]Transport{"slow": slow}}
	routed(t, s, map[string]string{"far": "userdb_transport=slow"})
	s.start(t)
	c := s.client(t)
	upToData(t, c, hello2, "", "bob@example.org", "far@example.org", "who@example.org")
	c.Expect("250 2.0.0") // bob's, while far's hangs
	for done := false; !done; {
		for _, o := range s.reported() {
			done = done || o.Mailbox == "who@example.org"
		}
	}
	close(release)
	c.Expect("250 2.0.0")
	c.Expect("250 2.0.0")
}

// A transport that panics, or forgets a recipient, or answers twice, does no harm.
func TestTransportThatIsBroken(t *testing.T) {
	bad := &fakeTransport{deliver: func(p *Parcel, done func(int, Handover)) {
		done(0, Handover{})
		done(0, Handover{Err: errors.New("again")})
		if strings.HasPrefix(p.Rcpts[0].Address, "p") {
			panic("bad")
		}
	}}
	s := newSite(t, "bob")
	s.agent.Transports = Transports{Named: map[string]Transport{"bad": bad}}
	routed(t, s, map[string]string{"p1": "userdb_transport=bad", "p2": "userdb_transport=bad"})
	s.start(t)
	wantReplies(t, s.client(t).Send("", []string{"p1@example.org", "bob@example.org", "p2@example.org"}, hello2, 3),
		"250 2.0.0", "250 2.0.0", "451 4.3.0")
	wantReplies(t, s.client(t).Send("", []string{"p2@example.org", "p1@example.org"}, hello2, 2), "250 2.0.0", "451 4.3.0")
}

// What was handed over is not handed over again for a client that lost the reply; what
// may have been is, with the same header; what was not is, with a header of its own time.
func TestHandedOverOnce(t *testing.T) {
	result := make(chan Handover, 10)
	relay := &fakeTransport{deliver: func(_ *Parcel, done func(int, Handover)) { done(0, <-result) }}
	s := remembering(t)
	s.agent.Transports = Transports{Named: map[string]Transport{"away": relay}, Default: "away"}
	routed(t, s, map[string]string{"far": ""})
	report, reported := s.agent.Report, make(chan struct{}, 10)
	s.agent.Report = func(o Outcome) {
		report(o)
		reported <- struct{}{}
	}
	s.start(t)
	body := "Received: from x by y (Postfix) id 4XyZ; date\r\n" + hello2
	once := func(h Handover, lost bool, want string) {
		t.Helper()
		result <- h
		c := s.client(t)
		upToData(t, c, body, "", "far@example.org")
		<-reported
		if lost {
			c.Close()
		} else {
			if got := c.Reply(); !strings.HasPrefix(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			c.Cmd("221", "QUIT")
		}
		<-s.told
	}
	broken := Handover{Err: fmt.Errorf("%w: reset", ErrBroken)}
	once(broken, false, "451 4.4.2")
	once(Handover{Err: ErrUnreachable}, false, "451 4.4.1")
	once(Handover{}, true, "")
	all, texts := relay.parcels()
	if all[0].Sum == 0 || all[0].Sum != all[2].Sum {
		t.Errorf("sums %x and %x", all[0].Sum, all[2].Sum)
	}
	if len(texts) != 3 || texts[0] != texts[1] || texts[0] != texts[2] || !strings.Contains(texts[0], " id 4XyZ;\n") {
		t.Errorf("%q", texts)
	}
	result = make(chan Handover, 10)
	once(broken, false, "250 2.0.0 OK") // was delivered before
	if _, texts := relay.parcels(); len(texts) != 3 {
		t.Errorf("handed over again: %q", texts)
	}
	<-result
	once(Handover{}, false, "250 2.0.0 OK")
	if _, texts := relay.parcels(); len(texts) != 4 {
		t.Errorf("sent on purpose, and not handed over: %d", len(texts))
	}
}

// Two hosts whose records name each other: the message ends soon.
func TestRelayLoop(t *testing.T) {
	s := newSite(t)
	s.agent.Transports = Transports{Named: map[string]Transport{"away": Discard{}}, Default: "away"}
	routed(t, s, map[string]string{"far": ""})
	s.start(t)
	mark := "Received: from a\r\n\tby mx.example.org (lmtpd relay) with LMTP id x;\r\n\tdate\r\nReceived: by other.example.org (lmtpd relay) id y; date\r\n"
	for n, want := range map[int]string{0: "250", maxRelayed: "250", maxRelayed + 1: "554 5.4.6"} {
		wantReplies(t, s.client(t).Send("", []string{"far@example.org"}, strings.Repeat(mark, n)+hello2, 1), want)
	}
}

func TestRoute(t *testing.T) {
	away, other := &fakeTransport{}, &fakeTransport{}
	tr := Transports{
		Named: map[string]Transport{"away": away, "other": other}, Hosts: "away",
		Domains: map[string]string{"lists.example.org": "other"},
		Self:    func(host, port string) bool { return host == "me" && (port == "" || port == "24") },
	}
	addr := userdb.Address{Local: "bob", Detail: "x", Domain: "example.org", Full: "Bob+x"}
	for _, test := range []struct {
		extra string // name=value ...
		want  string // transport, host, address; an error
	}{
		{"", "maildir"},
		{"transport=maildir host=h", "maildir"},
		{"transport=other", "other  Bob+x@example.org"},
		{"transport=other host=h port=25", "other h:25 Bob+x@example.org"},
		{"host=h", "away h Bob+x@example.org"},
		{"host=h:24", "away h:24 Bob+x@example.org"},
		{"host=[::1]", "away ::1 Bob+x@example.org"},
		{"host=::1 port=24", "away [::1]:24 Bob+x@example.org"},
		{"host=me", "maildir"},
		{"host=me port=24", "maildir"},
		{"transport=away host=me", "maildir"},
		{"host=me port=2424", "away me:2424 Bob+x@example.org"},
		{"host=h proxy=y destuser=robert", "away h robert+x@example.org"},
		{"host=h destuser=robert@example.net", "away h robert+x@example.net"},
		{"host=h proxy=n", "maildir"},
		{"host=h proxy=n proxy_maybe=y", "away h Bob+x@example.org"},
		{"proxy=y", `user record cannot be used: user "bob" of test: proxy without a host`},
		{"host=h/x", `user record cannot be used: user "bob" of test: host "h/x" is none`},
		{"host=h port=smtp", `user record cannot be used: user "bob" of test: port "smtp" is none`},
		{"transport=none", `user record cannot be used: user "bob" of test: transport "none" is not configured`},
	} {
		extra := map[string]string{}
		for f := range strings.FieldsSeq(test.extra) {
			k, v, _ := strings.Cut(f, "=")
			extra[k] = v
		}
		r, err := tr.route(&userdb.User{Name: "bob", Source: "test", Extra: extra}, addr)
		got := "maildir"
		if err != nil {
			got = err.Error()
		} else if r != nil {
			got = r.name + " " + r.host + " " + r.address
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.extra, got, test.want)
		}
	}
	addr.Domain = "lists.example.org"
	if r, err := tr.route(&userdb.User{}, addr); err != nil || r.to != other {
		t.Error(r, err)
	}
	tr.Default = "gone"
	addr.Domain = "example.org"
	if _, err := tr.route(&userdb.User{}, addr); !errors.Is(err, ErrMisconfigured) {
		t.Error(err)
	}
	if _, err := (&Transports{}).route(&userdb.User{Extra: map[string]string{"host": "h"}}, addr); !errors.Is(err, userdb.ErrBadRecord) {
		t.Error(err)
	}
}

type closer struct{ io.Writer }

func (closer) Close() error { return nil }

// A pipe that nobody reads holds a message up until its time is over, and no longer; one
// that is read again shows the next one.
func TestDebugTransportStuck(t *testing.T) {
	r, w := io.Pipe()
	d := &Debug{To: func() (io.WriteCloser, error) { return closer{w}, nil }, Target: "stdout", Timeout: 10 * time.Millisecond}
	opened := 0
	p := &Parcel{ID: "id", Rcpts: make([]ParcelRcpt, 1), Open: func() io.Reader {
		opened++
		return strings.NewReader(strings.Repeat("0123456789abcdef\n", 1000))
	}}
	one := func() (got Handover) {
		d.Deliver(t.Context(), p, func(_ int, h Handover) { got = h })
		return got
	}
	for range 2 { // the second waits for its turn
		if h := one(); !errors.Is(h.Err, ErrSlow) || !strings.Contains(h.Err.Error(), "stdout: nobody reads") {
			t.Errorf("%+v", h)
		}
	}
	if opened != 1 {
		t.Errorf("opened %d times", opened)
	}
	shown := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		shown <- string(b)
	}()
	d.turn <- struct{}{} // the first is over
	<-d.turn
	d.Timeout = 0
	if h := one(); h.Err != nil {
		t.Error(h.Err)
	}
	w.Close()
	if got := <-shown; strings.Count(got, "id is cut off") != 1 || strings.Count(got, "end of id") != 1 {
		t.Errorf("%q", got)
	}
}

func TestDebugTransport(t *testing.T) {
	var out strings.Builder
	d := &Debug{To: func() (io.WriteCloser, error) { return closer{&out}, nil }, Target: "stdout"}
	s := newSite(t)
	s.agent.Transports = Transports{Named: map[string]Transport{"show": d}, Default: "show"}
	routed(t, s, map[string]string{"far": "", "near": ""})
	s.start(t)
	s.client(t).Send("ann@example.org", []string{"far@example.org", "near@example.org"}, "Subject: x\r\n\r\nno end\r\n", 2)
	if got := out.String(); !strings.Contains(got, " from <ann@example.org> to <far@example.org> <near@example.org>\nReceived: ") || !strings.Contains(got, "\n\nno end\n---------- end of ") {
		t.Errorf("%q", got)
	}
	d.To = nil
	d.Log = s.agent.Log
	s.client(t).Send("", []string{"far@example.org"}, hello2, 1)
	if got := s.log.String(); !strings.Contains(got, `msg=message id=`) || !strings.Contains(got, `Hello.`) {
		t.Error(got)
	}
	d.To = func() (io.WriteCloser, error) { return nil, os.ErrPermission }
	wantReplies(t, s.client(t).Send("", []string{"far@example.org"}, hello2, 1), "451")
}
