package protocol_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/protocol/protocoltest"
)

// A dialog is a file testdata/dialogs/NAME.txt:
//
//	RFC 5321 section 4.1.1.9: what it shows     the first line names the rule
//	set mode smtp                               the server's settings, see (*dialogServer).set
//	C: NOOP                                     the client sends this and CR LF
//	C> NOOP\n                                   the client sends just this
//	S: 250 2.0.0 OK                             the server sends this and CR LF, and nothing else
//	D: <from> <rcpt> <rcpt> body                a message handed over whole, after all
//	HELLO                                       greeting, LHLO or EHLO, and what is offered by default
//	HELLO 1000                                  the same with another SIZE
//	TLS                                         the handshake of TLS; "TLS certificate" with one of the client's
//	END                                         the server closes the connection
//
// Escapes are \r \n \t \\ \xHH, and \(text*N) for a text N times. Lines that begin
// with "#" are comments. What the client sends between two S lines goes out in one
// write. "alone" on a line keeps the dialog from being sent in a single write, where
// the rules forbid that to a client; "whole" keeps it from being taken apart, where what
// it shows is what becomes of octets that come together.
type dialog struct {
	name     string
	rfc      string
	settings [][2]string
	alone    bool
	whole    bool
	secure   *protocoltest.Server // has the certificate; nil: no TLS
	ends     bool
	steps    []step // in turns
	messages []string
}

// step is what the client sends and what the server answers.
type step struct {
	send, expect []byte
	tls          string // the handshake that follows: "TLS" or "TLS certificate"
}

func readDialogs(t testing.TB) []*dialog {
	t.Helper()
	names, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	var all []*dialog
	for _, name := range names {
		d, err := readDialog(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, d)
	}
	return all
}

func readDialog(name string) (*dialog, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	d := &dialog{name: strings.TrimSuffix(filepath.Base(name), ".txt"), steps: []step{{}}}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	d.rfc = lines[0]
	if !strings.Contains(d.rfc, ": ") || strings.HasPrefix(d.rfc, "C") {
		return nil, errors.New("the first line must name the rule")
	}
	for i, line := range lines[1:] {
		if err := d.addLine(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return d, nil
}

func (d *dialog) addLine(line string) error {
	last := &d.steps[len(d.steps)-1]
	kind, rest, _ := strings.Cut(line, " ")
	data, err := unescape(rest)
	if err != nil {
		return err
	}
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
	case kind == "HELLO":
		if rest == "" {
			rest = "33554432"
		}
		for _, l := range strings.Split(strings.ReplaceAll(hello[d.mode()], "SIZE", "SIZE "+rest), "\n") {
			if err := d.addLine(l); err != nil {
				return err
			}
		}
	case line == "alone":
		d.alone = true
	case line == "whole":
		d.whole = true
	case line == "END":
		d.ends = true
	case kind == "TLS":
		last.tls = line
		d.steps = append(d.steps, step{})
	case kind == "set":
		key, value, _ := strings.Cut(rest, " ")
		d.settings = append(d.settings, [2]string{key, value})
		if key == "tls" {
			d.secure = protocoltest.NewUnstartedServer(protocol.SMTP, nil)
			d.secure.UseTLS()
		}
	case kind == "D:":
		d.messages = append(d.messages, string(data))
	case kind == "S:":
		last.expect = append(append(last.expect, data...), "\r\n"...)
	case kind == "C:" || kind == "C>":
		if last.expect != nil {
			d.steps = append(d.steps, step{})
			last = &d.steps[len(d.steps)-1]
		}
		last.send = append(last.send, data...)
		if kind == "C:" {
			last.send = append(last.send, "\r\n"...)
		}
	default:
		return fmt.Errorf("what is %q?", line)
	}
	return nil
}

// hello is the usual beginning, by mode.
var hello = map[string]string{
	"lmtp": "S: 220 mx.example.org LMTP ready\nC: LHLO client.example.org\n" + offered,
	"smtp": "S: 220 mx.example.org SMTP ready\nC: EHLO client.example.org\n" + offered,
}

const offered = `S: 250-mx.example.org
S: 250-SIZE
S: 250-8BITMIME
S: 250-SMTPUTF8
S: 250-ENHANCEDSTATUSCODES
S: 250-PIPELINING
S: 250-CHUNKING
S: 250-BINARYMIME
S: 250-LIMITS RCPTMAX=1000
S: 250 HELP`

func (d *dialog) mode() string {
	for _, kv := range d.settings {
		if kv[0] == "mode" {
			return kv[1]
		}
	}
	return "lmtp"
}

func unescape(s string) ([]byte, error) {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, errors.New("backslash at the end")
		}
		switch c := s[i]; c {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '\\':
			out = append(out, '\\')
		case 'x':
			n, err := strconv.ParseUint(s[i+1:min(i+3, len(s))], 16, 8)
			if err != nil {
				return nil, err
			}
			out = append(out, byte(n))
			i += 2
		case '(':
			inner, _, ok := strings.Cut(s[i+1:], ")")
			star := strings.LastIndexByte(inner, '*')
			if !ok || star < 0 {
				return nil, errors.New(`want \(text*N)`)
			}
			n, err := strconv.Atoi(inner[star+1:])
			if err != nil {
				return nil, err
			}
			text, err := unescape(inner[:star])
			if err != nil {
				return nil, err
			}
			out = append(out, bytes.Repeat(text, n)...)
			i += len(inner) + 1
		default:
			return nil, fmt.Errorf("unknown escape \\%c", c)
		}
	}
	return out, nil
}

func (d *dialog) sent() (all []byte) {
	for _, s := range d.steps {
		all = append(all, s.send...)
	}
	return all
}

func (d *dialog) expected() (all []byte) {
	for _, s := range d.steps {
		all = append(all, s.expect...)
	}
	return all
}

// TestDialogs runs each dialog over real sockets, step by step and in one write, and
// with a server that gets one octet per read; then, without sockets, split in two at
// each octet.
func TestDialogs(t *testing.T) {
	for _, d := range readDialogs(t) {
		t.Run(d.name, func(t *testing.T) {
			for _, network := range []string{"tcp", "unix"} {
				for _, single := range []bool{false, true} {
					if single && (d.whole || len(d.sent()) > maxSingle) {
						continue
					}
					d.overSocket(t, network, single, d.stepwise)
					if !d.alone {
						d.overSocket(t, network, single, d.atOnce)
					}
				}
			}
			switch {
			case d.alone || d.whole:
			case d.secured():
				d.splitRecords(t)
			default:
				d.splitEverywhere(t)
			}
		})
	}
}

// maxSingle bounds how long a dialog may be to be read octet by octet.
const maxSingle = 4 << 10

func (d *dialog) overSocket(t *testing.T, network string, single bool, run func(testing.TB, net.Conn)) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	if single {
		l = singleListener{l}
	}
	ds := newDialogServer(t, d)
	served := make(chan error, 1)
	serve := ds.srv.Serve
	if d.implicitTLS() {
		serve = ds.srv.ServeTLS
	}
	go func() { served <- serve(l) }()
	conn, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	run(t, conn)
	conn.Close()
	if err := ds.srv.Shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-served; err != protocol.ErrServerClosed {
		t.Errorf("Serve returned %v", err)
	}
	ds.check(t, d)
}

// patience bounds the wait for a server that has hung; no test depends on it.
const patience = 30 * time.Second

// stepwise reads the answer to each step before it sends the next one: no reply may
// wait for more input than its command.
func (d *dialog) stepwise(t testing.TB, conn net.Conn) {
	t.Helper()
	for _, s := range d.steps {
		conn.Write(s.send)
		got := make([]byte, len(s.expect))
		n, err := io.ReadFull(conn, got)
		if err != nil || !bytes.Equal(got, s.expect) {
			t.Fatalf("to %.200q: got %q (%v), want %q", s.send, got[:n], err, s.expect)
		}
		conn = d.handshake(t, conn, s.tls)
	}
	d.finish(t, conn, nil)
}

// atOnce sends everything in one write and then reads; with TLS, everything up to the
// handshake, and everything after it.
func (d *dialog) atOnce(t testing.TB, conn net.Conn) {
	t.Helper()
	d.inPieces(t, conn, -1)
}

// inPieces is atOnce with two writes in place of the one that octet cut is in, unless
// that is negative.
func (d *dialog) inPieces(t testing.TB, conn net.Conn, cut int) {
	t.Helper()
	for rest := d.steps; ; {
		all := &dialog{}
		for len(rest) > 0 && (len(all.steps) == 0 || all.steps[len(all.steps)-1].tls == "") {
			all.steps, rest = append(all.steps, rest[0]), rest[1:]
		}
		send, last := all.sent(), len(rest) == 0
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			if cut > 0 && cut < len(send) {
				conn.Write(send[:cut])
				conn.Write(send[cut:])
			} else {
				conn.Write(send) // may fail where the server closes early
			}
			if c, ok := conn.(interface{ CloseWrite() error }); ok && last && !d.ends {
				c.CloseWrite()
			}
		}()
		if last {
			d.finish(t, conn, all.expected())
			<-sent
			return
		}
		got := make([]byte, len(all.expected()))
		if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, all.expected()) {
			t.Fatalf("to %.200q: got %q (%v), want %q", send, got[:n], err, all.expected())
		}
		<-sent
		cut -= len(send)
		conn = d.handshake(t, conn, all.steps[len(all.steps)-1].tls)
	}
}

func (d *dialog) finish(t testing.TB, conn net.Conn, want []byte) {
	t.Helper()
	if want == nil && !d.ends {
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	got, err := io.ReadAll(conn)
	// Whoever has had its last reply need not hear of the end within TLS.
	if err != nil && !strings.Contains(err.Error(), "reset by peer") && (d.secure == nil || err != io.ErrUnexpectedEOF) {
		t.Fatalf("reading to the end: %v (got %q)", err, got)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
}

// maxSplit bounds how long a dialog may be to be split at each of its octets.
const maxSplit = 1500

func (d *dialog) splitEverywhere(t *testing.T) {
	all := d.sent()
	if len(all) > maxSplit {
		return
	}
	for i := range len(all) + 1 {
		ds := newDialogServer(t, d)
		conn := &scriptConn{pieces: [][]byte{all[:i], all[i:]}}
		ds.srv.ServeConn(context.Background(), conn)
		if got := conn.out.Bytes(); !bytes.Equal(got, d.expected()) {
			t.Fatalf("split at %d: got %q\nwant %q", i, got, d.expected())
		}
		ds.check(t, d)
	}
}

// scriptConn is a connection whose client has said everything beforehand, in pieces
// that arrive one by one.
type scriptConn struct {
	pieces [][]byte
	mu     sync.Mutex
	out    bytes.Buffer
	onRead func()
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if c.onRead != nil {
		c.onRead()
	}
	for len(c.pieces) > 0 && len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	c.pieces[0] = c.pieces[0][n:]
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return &net.UnixAddr{Net: "unix"} }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.UnixAddr{Net: "unix"} }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// singleListener's connections give the server one octet per read.
type singleListener struct{ net.Listener }

func (l singleListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return singleConn{c}, nil
}

type singleConn struct{ net.Conn }

func (c singleConn) Read(p []byte) (int, error) { return c.Conn.Read(p[:min(1, len(p))]) }

func (c singleConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}
