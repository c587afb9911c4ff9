package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/protocol"
)

// link is a connection to a server that has been greeted. One goroutine uses it at a
// time.
type link struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
	host Host
	lmtp bool
	ext  map[string]string // by keyword in upper case, what stands behind it

	safe   bool  // secured, and it is the server that it says it is
	dead   bool  // of no use any more
	open   bool  // a transaction has begun that has not ended
	reused bool  // it has carried a message before
	broken error // why there was no answer to the end of the data
	timer  *time.Timer
}

// Failures of one connection.
var (
	errStale     = errors.New("the server has closed a connection that was kept")
	errOutOfStep = errors.New("it answers what no server may")
)

// connect makes a connection on which mail may be sent.
func (r *Relay) connect(ctx context.Context, h Host) (*link, error) {
	security := r.TLS
	if h.Network == "unix" {
		security = TLSOff
	}
	l, err := r.dial(ctx, h, security)
	if security == TLSOpportunistic && errors.Is(err, delivery.ErrUnsafe) {
		l, err = r.dial(ctx, h, TLSOff) // better than no mail at all
	}
	return l, err
}

func (r *Relay) dial(ctx context.Context, h Host, security Security) (_ *link, err error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(r.Connect, 20*time.Second))
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, h.Network, h.Addr)
	if err != nil {
		return nil, err
	}
	l := &link{host: h, lmtp: r.Mode == protocol.LMTP}
	l.use(conn)
	defer func() {
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			l.conn.Close()
		}
	}()
	if r.own(conn) {
		return nil, fmt.Errorf("%w: this is lmtpd itself, on this machine; its hostname as host in the user record means delivery here", delivery.ErrMisconfigured)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if security == TLSImplicit {
		if err := l.secure(ctx, r.tlsConfig(h, security)); err != nil {
			return nil, err
		}
	}
	greeting, err := l.reply()
	if err != nil {
		return nil, err
	}
	if greeting.Code != 220 {
		return nil, said("greeting", greeting)
	}
	if err := l.hello(r.Hello); err != nil {
		return nil, err
	}
	if security == TLSOpportunistic || security == TLSRequired {
		if err := l.startTLS(ctx, r, security); err != nil {
			return nil, err
		}
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return l, nil
}

// own reports whether a connection leads to this very program.
func (r *Relay) own(conn net.Conn) bool {
	local, ok1 := conn.LocalAddr().(*net.TCPAddr)
	remote, ok2 := conn.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && local.IP.Equal(remote.IP) && slices.Contains(r.OwnPorts, remote.Port)
}

func (l *link) use(conn net.Conn) {
	l.conn, l.in, l.out = conn, bufio.NewReaderSize(conn, 4096), bufio.NewWriterSize(conn, 32<<10)
}

func (l *link) startTLS(ctx context.Context, r *Relay, security Security) error {
	if _, offered := l.ext["STARTTLS"]; !offered {
		if security == TLSOpportunistic {
			return nil
		}
		return fmt.Errorf("%w: it does not offer STARTTLS", delivery.ErrUnsafe)
	}
	reply, err := l.command("STARTTLS")
	if err != nil {
		return err
	}
	if reply.Code != 220 {
		return fmt.Errorf("%w: %w", delivery.ErrUnsafe, said("STARTTLS", reply))
	}
	if l.in.Buffered() > 0 { // what came in clear must not count as safe
		return fmt.Errorf("%w: it sent more than the reply to STARTTLS", delivery.ErrUnsafe)
	}
	if err := l.secure(ctx, r.tlsConfig(l.host, security)); err != nil {
		return err
	}
	return l.hello(r.Hello)
}

func (l *link) secure(ctx context.Context, config *tls.Config) error {
	conn := tls.Client(l.conn, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", delivery.ErrUnsafe, err)
	}
	l.use(conn)
	l.safe = !config.InsecureSkipVerify
	return nil
}

func (r *Relay) tlsConfig(h Host, security Security) *tls.Config {
	config := &tls.Config{}
	if r.TLSConfig != nil {
		config = r.TLSConfig.Clone()
	}
	config.ServerName, _, _ = net.SplitHostPort(h.Addr)
	config.InsecureSkipVerify = security == TLSOpportunistic // else nothing at all would be secured
	return config
}

// hello greets the server and learns what it can do.
func (l *link) hello(name string) error {
	verb := "EHLO"
	if l.lmtp {
		verb = "LHLO"
	}
	l.ext = map[string]string{}
	reply, err := l.command(verb + " " + name)
	if err == nil && reply.Code/100 == 5 && !l.lmtp {
		reply, err = l.command("HELO " + name)
	} else if err == nil && reply.Code == 250 {
		_, lines, _ := strings.Cut(reply.Text, "\n")
		for line := range strings.SplitSeq(lines, "\n") {
			keyword, rest, _ := strings.Cut(line, " ")
			l.ext[strings.ToUpper(keyword)] = rest
		}
	}
	if err == nil && reply.Code != 250 {
		err = said(verb, reply)
	}
	return err
}

func (l *link) offers(extension string) bool {
	_, ok := l.ext[extension]
	return ok
}

// said is the error for a reply that ends a connection before there is mail on it.
func said(to string, r protocol.Reply) error {
	return fmt.Errorf("%s: it said %q", to, r.Error())
}

// command sends one line and reads the reply.
func (l *link) command(line string) (protocol.Reply, error) {
	l.put(line)
	if err := l.flush(); err != nil {
		return protocol.Reply{}, err
	}
	return l.reply()
}

// put queues a command. Addresses have been parsed; a line end in one of them would
// be two commands.
func (l *link) put(line string) {
	if strings.ContainsAny(line, "\r\n\x00") {
		panic("relay: control character in a command")
	}
	l.out.WriteString(line)
	l.out.WriteString("\r\n")
}

func (l *link) flush() error {
	err := l.out.Flush()
	if err != nil {
		l.dead = true
	}
	return err
}

// Bounds on what a server may say.
const (
	maxLine  = 2048 // octets of a line of a reply; RFC 5321 section 4.5.3.1.5 has 512
	maxLines = 200
	maxText  = 8 << 10
)

// reply reads one reply. After an error the link is dead. The text has a line for
// each line of the reply, without the enhanced code, and nothing but printable text.
func (l *link) reply() (r protocol.Reply, err error) {
	defer func() { l.dead = l.dead || err != nil }()
	var text strings.Builder
	for n := 0; ; n++ {
		line, err := l.in.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull, len(line) > maxLine, n == maxLines:
			return r, fmt.Errorf("%w: a reply without end", errOutOfStep)
		case err == io.EOF && (n > 0 || len(line) > 0):
			return r, io.ErrUnexpectedEOF
		case err != nil:
			return r, err
		}
		s := strings.TrimRight(string(line), "\r\n")
		code, more, ok := parseCode(s)
		if !ok || n > 0 && code != r.Code {
			return r, fmt.Errorf("%w: %.100q", errOutOfStep, s)
		}
		r.Code = code
		s = s[min(4, len(s)):]
		if e, rest, ok := cutEnhanced(s); ok && int(e[0]) == code/100 {
			r.Enhanced, s = e, rest
		}
		if text.Len() < maxText {
			if n > 0 {
				text.WriteByte('\n')
			}
			text.WriteString(printable(s))
		}
		if !more {
			r.Text = text.String()
			return r, nil
		}
	}
}

// parseCode reads "250 text", "250-text" and "250".
func parseCode(s string) (code int, more, ok bool) {
	if len(s) < 3 {
		return 0, false, false
	}
	for _, c := range []byte(s[:3]) {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = 10*code + int(c-'0')
	}
	if code < 200 || code > 599 || len(s) > 3 && s[3] != ' ' && s[3] != '-' {
		return 0, false, false
	}
	return code, len(s) > 3 && s[3] == '-', true
}

// cutEnhanced takes a status code of RFC 3463 off the front.
func cutEnhanced(s string) (e protocol.Enhanced, rest string, ok bool) {
	word, rest, _ := strings.Cut(s, " ")
	parts := strings.Split(word, ".")
	if len(parts) != 3 {
		return e, s, false
	}
	for i, p := range parts {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return e, s, false
		}
		for _, c := range []byte(p) {
			e[i] = 10*e[i] + uint16(c-'0')
		}
	}
	return e, rest, true
}

// printable is text that can stand in a log and in a reply.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == utf8.RuneError || c >= 0x80 && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// quit ends the connection in good order; a server that does not answer is not waited
// for long.
func (l *link) quit() {
	if !l.dead {
		l.conn.SetDeadline(time.Now().Add(5 * time.Second))
		l.command("QUIT")
	}
	l.close()
}

func (l *link) close() {
	l.dead = true
	l.conn.Close()
}
