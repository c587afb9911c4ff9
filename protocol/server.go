package protocol

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Mode is the protocol that a server speaks.
type Mode uint8

const (
	SMTP Mode = iota // RFC 5321: one reply for a message
	LMTP             // RFC 2033: one reply for each recipient
)

func (m Mode) String() string {
	if m == LMTP {
		return "LMTP"
	}
	return "SMTP"
}

// Ext is a set of service extensions to announce.
type Ext uint32

const (
	ExtPipelining Ext = 1 << iota // RFC 2920
	ExtEnhanced                   // ENHANCEDSTATUSCODES, RFC 2034
	Ext8BitMIME                   // RFC 6152
	ExtSize                       // RFC 1870
	ExtSMTPUTF8                   // RFC 6531; always on in LMTP mode, where not offering it bounces mail
	ExtHelp                       // HELP in the EHLO reply
	ExtChunking                   // CHUNKING: BDAT, RFC 3030
	ExtBinaryMIME                 // BINARYMIME, RFC 3030; only with ExtChunking
	ExtLimits                     // LIMITS, RFC 9422
	// ExtDSN is RFC 3461: not by default, since it promises notices of success, which
	// only the embedding program can send. ORCPT is understood without it.
	ExtDSN
	// ExtRRVS is RFC 7293 and ExtRequireTLS RFC 8689, which is offered within TLS only:
	// not by default, since both are promises that a Policy or Handler has to keep.
	ExtRRVS
	ExtRequireTLS

	DefaultExt = ExtPipelining | ExtEnhanced | Ext8BitMIME | ExtSize | ExtSMTPUTF8 | ExtHelp | ExtChunking | ExtBinaryMIME | ExtLimits
)

// Newlines says what becomes of a message with a CR or LF that stands alone. In
// no case does one of them end the message.
type Newlines uint8

const (
	// NewlinesDefault is NewlinesPreserve in LMTP mode, since refusing would
	// bounce mail that an MTA has accepted, and NewlinesReject in SMTP mode.
	NewlinesDefault   Newlines = iota
	NewlinesPreserve           // pass on as it came; command lines may end with a lone LF too
	NewlinesNormalize          // make CR LF of each, but in BINARYMIME; command lines as with NewlinesPreserve
	NewlinesReject             // refuse the message with 550 5.6.0 (RFC 5321 section 2.3.8)
)

// Server serves sessions. Set its fields before the first use and leave them
// alone afterwards; its methods are safe for concurrent use. One Server may
// serve several listeners. The zero value is a usable SMTP server that accepts
// and discards.
type Server struct {
	Mode     Mode
	Hostname string  // first word of the greeting; default os.Hostname
	Ident    string  // rest of the greeting; default "lmtpd"
	Handler  Handler // nil: accept and discard
	Policy   Policy
	Verbs    map[string]Verb // commands beyond those known, or in their place
	Params   ParamFunc       // parameters of MAIL and RCPT beyond those known
	// Trust says what a peer may tell about its client; nil: nothing. PeerAddr and
	// PeerCred of the session are known when it is asked, before the greeting.
	Trust func(*Session) Trust
	Ext   Ext // 0: DefaultExt
	// TLSConfig offers STARTTLS (RFC 3207), and is what ServeTLS uses; nil: no TLS.
	TLSConfig *tls.Config
	// TLSNeeded refuses all but NOOP, HELO, EHLO, LHLO, STARTTLS and QUIT with 530
	// until the connection is secured.
	TLSNeeded bool
	Auth      Auth // AUTH; the zero value: not offered
	Limits    Limits
	Timeouts  Timeouts
	Newlines  Newlines
	// Trace is told what happens; nil: nothing.
	Trace *Trace
	// Log gets what goes wrong outside of any reply: failed accepts, panics.
	// nil: slog.Default.
	Log *slog.Logger
	// BaseContext and ConnContext make the context that hooks and the handler
	// get; both optional, as in net/http.
	BaseContext func(net.Listener) context.Context
	ConnContext func(context.Context, net.Conn) context.Context
	// ConnState is told when a session is new, begins and ends a transaction, and is
	// over, in the session's goroutine; nil: nobody is told.
	ConnState func(*Session, State)

	once     sync.Once
	hostname string
	limits   Limits
	timeouts Timeouts
	ext      Ext
	newlines Newlines
	mailLine int // see mailLineGrowth
	lastID   atomic.Uint64
	counters counters

	mu        sync.Mutex
	listeners map[*onceListener]struct{}
	sessions  map[*Session]struct{}
	evicting  int           // sessions told to make room that are not gone yet
	arriving  int           // connections accepted that are not among the sessions yet
	forced    bool          // closing by Close: nobody is let in
	closing   atomic.Bool   // set under mu, read by sessions without it
	closeBy   time.Time     // set before closing: when newcomers have to be gone
	stop      chan struct{} // closed when closing begins
	drained   chan struct{} // closed when closing and no session is left
}

var (
	// ErrServerClosed is what Serve and ServeConn return after Shutdown or Close.
	ErrServerClosed = errors.New("protocol: server closed")
	// ErrCrowded is what ServeConn returns where Limits.Sessions is reached and no
	// session could be made to leave.
	ErrCrowded = errors.New("protocol: too many sessions")
)

func (srv *Server) init() {
	srv.once.Do(func() {
		srv.hostname = srv.Hostname
		if srv.hostname == "" {
			srv.hostname, _ = os.Hostname()
		}
		if srv.hostname == "" {
			srv.hostname = "localhost"
		}
		srv.limits = srv.Limits.withDefaults()
		srv.timeouts = srv.Timeouts.withDefaults()
		srv.ext = srv.Ext
		if srv.ext == 0 {
			srv.ext = DefaultExt
		}
		if srv.Mode == LMTP {
			srv.ext |= ExtSMTPUTF8
		}
		if srv.ext&ExtChunking == 0 {
			srv.ext &^= ExtBinaryMIME // RFC 3030 section 3
		}
		srv.mailLine = srv.mailLineGrowth()
		srv.newlines = srv.Newlines
		if srv.newlines == NewlinesDefault {
			srv.newlines = NewlinesReject
			if srv.Mode == LMTP {
				srv.newlines = NewlinesPreserve
			}
		}
		// Session numbers that differ from those of the last run keep log
		// lines of two runs apart.
		srv.lastID.Store(uint64(time.Now().Unix()) << 24)
		srv.mu.Lock()
		srv.listeners = make(map[*onceListener]struct{})
		srv.sessions = make(map[*Session]struct{})
		srv.stop = make(chan struct{})
		srv.drained = make(chan struct{})
		srv.mu.Unlock()
	})
}

func (srv *Server) log() *slog.Logger {
	if srv.Log != nil {
		return srv.Log
	}
	return slog.Default()
}

// ListenAndServe listens on a network address ("tcp", "unix") and serves it.
func (srv *Server) ListenAndServe(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	return srv.Serve(l)
}

// Serve accepts connections until the server or l is closed, and serves each in
// a goroutine of its own. It closes l, and returns ErrServerClosed after Shutdown
// and Close. In LMTP mode it refuses TCP port 25 (RFC 2033 section 5).
func (srv *Server) Serve(l net.Listener) error {
	srv.init()
	ol := &onceListener{Listener: l}
	defer ol.Close()
	if a, ok := l.Addr().(*net.TCPAddr); ok && srv.Mode == LMTP && a.Port == 25 {
		return errors.New("protocol: LMTP must not be served on TCP port 25 (RFC 2033 section 5)")
	}
	if !srv.trackListener(ol) {
		return ErrServerClosed
	}
	defer srv.untrackListener(ol)

	ctx := context.Background()
	if srv.BaseContext != nil {
		ctx = srv.BaseContext(l)
	}
	var delay time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			if srv.closing.Load() {
				return ErrServerClosed
			}
			if !temporary(err) {
				return err
			}
			// Out of descriptors: take one from whoever idles longest.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			srv.log().Error("accept failed, trying again", "error", err, "delay", delay)
			srv.evict()
			select {
			case <-srv.stop:
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		srv.arrive()
		go srv.serveConn(ctx, conn)
	}
}

// ServeTLS is Serve with TLS from the first octet on (RFC 8314 section 3.3), by
// TLSConfig. The handshake is the session's: a slow one holds up no other.
func (srv *Server) ServeTLS(l net.Listener) error {
	if srv.TLSConfig == nil {
		l.Close()
		return errors.New("protocol: ServeTLS needs a TLSConfig")
	}
	return srv.Serve(tls.NewListener(l, srv.TLSConfig))
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// ServeConn serves one session on a connection that came from anywhere (inetd,
// net.Pipe, a test) and closes it. A *tls.Conn is asked for its handshake first. It returns when the session has ended: nil
// after QUIT or a close that the server wanted, else the reason. The end of ctx
// does not end the session: that is what Shutdown and Close are for.
func (srv *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	srv.init()
	srv.arrive()
	return srv.serveConn(ctx, conn)
}

// serveConn is ServeConn for a connection that has arrived.
func (srv *Server) serveConn(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	if srv.ConnContext != nil {
		ctx = srv.ConnContext(ctx, conn)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv.counters.connections.Add(1)
	s := newSession(srv, conn, cancel)
	if r, err := srv.admit(s); err != nil {
		// It is in no list, so it must not last: no lingering.
		s.wire.writeTimeout = lingerTime
		s.put(r)
		s.wire.flush()
		return err
	}
	defer srv.release(s)
	return s.serve(ctx)
}

// greeting is the text of the 220 line.
func (srv *Server) greeting() string {
	ident := srv.Ident
	if ident == "" {
		ident = "lmtpd"
	}
	return strings.TrimSpace(srv.hostname + " " + srv.Mode.String() + " " + ident)
}

type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}
