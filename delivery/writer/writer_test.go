package writer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// fake is a maildir.Writer of a test.
type fake func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result

func (f fake) Deliver(ctx context.Context, b maildir.Body, targets []maildir.Target, done func(int, maildir.Result)) {
	var all sync.WaitGroup
	for i := range targets {
		all.Go(func() { done(i, f(ctx, b, targets[i])) })
	}
	all.Wait()
}

// good delivers everything.
var good = fake(func(_ context.Context, b maildir.Body, t maildir.Target) maildir.Result {
	return maildir.Result{File: t.Root + "/new/1", Size: b.Size}
})

func allow(context.Context, *maildir.Target) error { return nil }

// owned is a target that the server does not refuse where the test is root.
func owned(root string) maildir.Target {
	return maildir.Target{Owner: &maildir.Owner{UID: 64101, GID: 64201}, Root: root, Path: "Maildir"}
}

// writerLog collects what the server logs.
type writerLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *writerLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *writerLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lw") // a socket's path may have 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "w")
}

func listen(t testing.TB, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serve runs s on path until the test ends.
func serve(t testing.TB, s *Server, path string) {
	t.Helper()
	if s.Authorize == nil {
		s.Authorize = allow
	}
	if s.FrontUID == 0 {
		s.FrontUID = uint32(os.Getuid())
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	ln := listen(t, path)
	over := make(chan error, 1)
	go func() { over <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-over; err != ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
}

// pair is a server and a client of it.
func pair(t testing.TB, s *Server) *Client {
	t.Helper()
	path := socketPath(t)
	serve(t, s, path)
	c := &Client{Address: path}
	t.Cleanup(func() { c.Close() })
	return c
}

func text(s string) maildir.Body {
	return maildir.Body{Data: []byte(s), Size: int64(len(s)), Lines: int64(strings.Count(s, "\n"))}
}

// deliver gives the results by index.
func deliver(t testing.TB, ctx context.Context, c *Client, b maildir.Body, targets ...maildir.Target) []maildir.Result {
	t.Helper()
	var mu sync.Mutex
	results := make([]maildir.Result, len(targets))
	calls := make([]int, len(targets))
	c.Deliver(ctx, b, targets, func(i int, r maildir.Result) {
		mu.Lock()
		defer mu.Unlock()
		results[i] = r
		calls[i]++
	})
	for i, n := range calls {
		if n != 1 {
			t.Errorf("done was called %d times for target %d", n, i)
		}
	}
	return results
}

func wantErr(t testing.TB, r maildir.Result, causes ...error) {
	t.Helper()
	var e *maildir.Error
	if !errors.As(r.Err, &e) {
		t.Fatalf("error is %v, not a *maildir.Error", r.Err)
	}
	for _, cause := range causes {
		if !errors.Is(r.Err, cause) {
			t.Errorf("error is %v, want %v", r.Err, cause)
		}
	}
	if r.File != "" {
		t.Errorf("a failed copy has the file %s", r.File)
	}
}

// Bodies of all kinds and sizes arrive as they are.
func TestBodies(t *testing.T) {
	arrived := make(chan []byte, 1)
	c := pair(t, &Server{Writer: fake(func(_ context.Context, b maildir.Body, _ maildir.Target) maildir.Result {
		got := slices.Clone(b.Data)
		if b.File != nil {
			got = make([]byte, b.Size)
			if _, err := b.File.ReadAt(got, 0); err != nil {
				return maildir.Result{Err: err}
			}
		}
		arrived <- got
		return maildir.Result{Size: b.Size*2 + b.Lines}
	})})
	for _, size := range []int{0, 1, 4 << 10, maxPacket - 200, maxPacket - 1, maxPacket, maxPacket + 1, maxInline - 1, maxInline, maxInline + 1, 5 << 20} {
		data := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		memory := maildir.Body{Data: data, Size: int64(size), Lines: int64(bytes.Count(data, []byte("\n")))}
		spooled := memory
		spooled.Data, spooled.File = nil, file
		for _, b := range []maildir.Body{memory, spooled} {
			target := owned("/r")
			target.Header = bytes.Repeat([]byte("h"), size%maxHeader)
			r := deliver(t, t.Context(), c, b, target)[0]
			var got []byte
			if r.Err == nil {
				got = <-arrived
			}
			if r.Err != nil || !bytes.Equal(got, data) || r.Size != b.Size*2+b.Lines {
				t.Errorf("%d octets, file %t: %d arrived, %+v", size, b.File != nil, len(got), r)
			}
		}
		file.Close()
	}
	if r := deliver(t, t.Context(), c, maildir.Body{Data: []byte("x"), Size: 2}, owned("/r"))[0]; r.Err == nil {
		t.Error("a body of the wrong size was sent")
	}
}

// One stuck mailbox holds back neither the others of its request nor other requests.
func TestStuckMailbox(t *testing.T) {
	release := make(chan struct{})
	c := pair(t, &Server{Writer: fake(func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result {
		if t.Root == "/stuck" {
			<-release
		}
		return good(ctx, b, t)
	})})
	results := make(chan int, 3)
	var all sync.WaitGroup
	all.Go(func() {
		c.Deliver(t.Context(), text("x\n"), []maildir.Target{owned("/stuck"), owned("/a"), owned("/b")}, func(i int, r maildir.Result) {
			if r.Err != nil {
				t.Error(r.Err)
			}
			results <- i
		})
	})
	if a, b := <-results, <-results; a+b != 3 {
		t.Errorf("%d and %d came before the stuck one", a, b)
	}
	for range 10 {
		if r := deliver(t, t.Context(), c, text("y\n"), owned("/c"))[0]; r.Err != nil {
			t.Error(r.Err)
		}
	}
	close(release)
	all.Wait()
}

// The same for a lookup that hangs.
func TestStuckLookup(t *testing.T) {
	release := make(chan struct{})
	c := pair(t, &Server{Writer: good, Authorize: func(ctx context.Context, t *maildir.Target) error {
		if t.Root == "/stuck" {
			<-release
		}
		return nil
	}})
	targets := []maildir.Target{owned("/stuck")}
	for range 50 {
		targets = append(targets, owned("/a"))
	}
	results := make(chan int, len(targets))
	go c.Deliver(t.Context(), text("x\n"), targets, func(i int, r maildir.Result) { results <- i })
	for range 50 {
		if i := <-results; i == 0 {
			t.Error("the stuck one is not stuck")
		}
	}
	close(release)
	if i := <-results; i != 0 {
		t.Errorf("%d came last", i)
	}
}

func TestManyAtOnce(t *testing.T) {
	c := pair(t, &Server{Writer: good, Connections: 5})
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			for range 20 {
				for i, r := range deliver(t, t.Context(), c, text("x\n"), owned("/a"), owned("/b"), owned("/c")) {
					if want := "/" + string(rune('a'+i)) + "/new/1"; r.Err != nil || r.File != want {
						t.Errorf("%+v, want %s", r, want)
					}
				}
			}
		})
	}
	all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n == 0 || n > 32 {
		t.Errorf("%d connections kept", n)
	}
}

// More targets than a request may have become several requests.
func TestManyTargets(t *testing.T) {
	c := pair(t, &Server{Writer: good})
	var targets []maildir.Target
	for range 2*maxTargets + 300 {
		targets = append(targets, owned("/a"))
	}
	targets[7].Header = make([]byte, maxHeader+1)
	targets[1200].Owner.Groups = make([]uint32, maxGroups+1)
	for i := range 200 {
		targets[2000+i].Header = make([]byte, maxHeader)
	}
	for i, r := range deliver(t, t.Context(), c, text("x\n"), targets...) {
		if i == 7 || i == 1200 {
			wantErr(t, r, errTooLong)
		} else if r.Err != nil {
			t.Fatalf("target %d: %v", i, r.Err)
		}
	}
}

// Users that the front has heard of first.
func TestAuthorizeLater(t *testing.T) {
	var asked atomic.Int32
	s := &Server{Writer: good, Behind: time.Millisecond, Authorize: func(context.Context, *maildir.Target) error {
		if n := asked.Add(1); n < 3 || n > 10 {
			return maildir.ErrOwner
		}
		return nil
	}}
	c := pair(t, s)
	one := func() (res maildir.Result) {
		c.Deliver(t.Context(), maildir.Body{}, []maildir.Target{owned("/home/new")}, func(_ int, r maildir.Result) { res = r })
		return res
	}
	if r := one(); r.Err != nil || asked.Load() != 3 {
		t.Errorf("%v after %d times", r.Err, asked.Load())
	}
	asked.Store(10)
	if r := one(); !errors.Is(r.Err, maildir.ErrOwner) || asked.Load() != 11+maxAsked {
		t.Errorf("%v after %d times", r.Err, asked.Load())
	}
}

func TestAuthorizeDecides(t *testing.T) {
	var log writerLog
	other := maildir.Owner{UID: 7, GID: 7}
	c := pair(t, &Server{
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Authorize: func(_ context.Context, t *maildir.Target) error {
			if t.Root == "/foreign" {
				return maildir.ErrPath
			}
			t.Owner = &other
			return nil
		},
		Writer: fake(func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result {
			if t.Root == "/foreign" || t.Owner.UID != 7 {
				panic("the writer was asked")
			}
			return good(ctx, b, t)
		}),
	})
	r := deliver(t, t.Context(), c, text("x\n"), owned("/foreign"), owned("/home"), owned("/foreign"))
	wantErr(t, r[0], maildir.ErrPath)
	wantErr(t, r[2], maildir.ErrPath)
	if r[1].Err != nil {
		t.Error(r[1].Err)
	}
	wantErr(t, deliver(t, t.Context(), c, text("x\n"), owned("/foreign"))[0], maildir.ErrPath)
	if !strings.Contains(log.String(), "copy refused") || !strings.Contains(log.String(), "/foreign") {
		t.Errorf("log is %s", log.String())
	}
	if os.Geteuid() == 0 {
		wantErr(t, deliver(t, t.Context(), c, text("x\n"), maildir.Target{Root: "/r"})[0], maildir.ErrOwner)
	}
}

func TestOnlyTheFront(t *testing.T) {
	var log writerLog
	s := &Server{
		FrontUID: uint32(os.Getuid()) + 1, Log: slog.New(slog.NewTextHandler(&log, nil)),
		Writer: fake(func(context.Context, maildir.Body, maildir.Target) maildir.Result { panic("a stranger was served") }),
	}
	c := pair(t, s)
	for range 20 {
		wantErr(t, deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0], ErrRefused)
	}
	if !strings.Contains(log.String(), "and the front has") {
		t.Errorf("log is %s", log.String())
	}
}

func TestErrorsOfTheWriter(t *testing.T) {
	c := pair(t, &Server{Writer: fake(func(_ context.Context, _ maildir.Body, t maildir.Target) maildir.Result {
		return maildir.Result{Err: &maildir.Error{Op: maildir.OpUnnamed, Path: t.Root, UID: 5, GID: 6, Err: syscall.EACCES, Missing: "missing +w"}}
	})})
	r := deliver(t, t.Context(), c, text("x\n"), owned("/r"))[0]
	wantErr(t, r, syscall.EACCES, os.ErrPermission)
	if want := "maildir: create unnamed /r: permission denied (uid 5, gid 6: missing +w)"; r.Err.Error() != want {
		t.Errorf("error is %q, want %q", r.Err, want)
	}
}

// The deadline of the front is the writer's.
func TestDeadline(t *testing.T) {
	waits := fake(func(ctx context.Context, _ maildir.Body, _ maildir.Target) maildir.Result {
		if _, ok := ctx.Deadline(); !ok {
			return maildir.Result{Err: errors.New("no deadline")}
		}
		<-ctx.Done()
		return maildir.Result{Err: &maildir.Error{Op: maildir.OpWrite, Err: context.Cause(ctx)}}
	})
	c := pair(t, &Server{Writer: waits})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r := deliver(t, ctx, c, text("x\n"), owned("/r"))[0]
	if !errors.Is(r.Err, context.DeadlineExceeded) && !errors.Is(r.Err, context.Canceled) {
		t.Errorf("error is %v", r.Err)
	}
	<-ctx.Done() // the writer's clock may have been a moment ahead
	if r := deliver(t, ctx, c, text("x\n"), owned("/r"))[0]; !errors.Is(r.Err, context.DeadlineExceeded) || !errors.Is(r.Err, ErrUnavailable) {
		t.Errorf("after its deadline a request ends with %v", r.Err)
	}
}

// A cancelled request is cancelled there too, and a copy that has its name by then is
// still a success.
func TestCancel(t *testing.T) {
	started := make(chan struct{}, 2)
	c := pair(t, &Server{Writer: fake(func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result {
		started <- struct{}{}
		<-ctx.Done()
		if t.Root == "/named" {
			return good(ctx, b, t)
		}
		return maildir.Result{Err: &maildir.Error{Op: maildir.OpWrite, Err: context.Cause(ctx)}}
	})})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		<-started
		cancel()
	}()
	r := deliver(t, ctx, c, text("x\n"), owned("/named"), owned("/unnamed"))
	if r[0].Err != nil {
		t.Error(r[0].Err)
	}
	wantErr(t, r[1], context.Canceled)
}

// A writer that does not even react to the cancellation is given up.
func TestGrace(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	defer close(release)
	c := pair(t, &Server{Writer: fake(func(ctx context.Context, b maildir.Body, t maildir.Target) maildir.Result {
		close(started)
		<-release
		return good(ctx, b, t)
	})})
	c.Grace = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	wantErr(t, deliver(t, ctx, c, text("x\n"), owned("/r"))[0], ErrLost, context.Canceled)
}

// When the front ends, what it asked for is cancelled.
func TestFrontGone(t *testing.T) {
	started, ended := make(chan struct{}), make(chan error)
	s := &Server{Writer: fake(func(ctx context.Context, _ maildir.Body, _ maildir.Target) maildir.Result {
		close(started)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return maildir.Result{Err: context.Cause(ctx)}
	})}
	path := socketPath(t)
	serve(t, s, path)
	conn := dialRaw(t, path)
	if err := conn.send(whole(t, begin{size: 1, targets: 1}, "x", owned("/r")), -1); err != nil {
		t.Fatal(err)
	}
	<-started
	conn.conn.Close()
	if err := <-ended; err != errGone {
		t.Errorf("cause is %v", err)
	}
}

func dialRaw(t testing.TB, path string) *packetConn {
	t.Helper()
	u, err := net.DialUnix(network, nil, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		t.Fatal(err)
	}
	c, err := newPacketConn(u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return c
}

// What does not follow the protocol is refused before anybody is asked.
func TestRefusedPackets(t *testing.T) {
	path := socketPath(t)
	serve(t, &Server{
		Incomplete: 50 * time.Millisecond,
		Authorize:  func(context.Context, *maildir.Target) error { panic("asked") },
		Writer:     fake(func(context.Context, maildir.Body, maildir.Target) maildir.Result { panic("asked") }),
	}, path)
	a := owned("/r")
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dir := t.TempDir()
	open := func(name string, flags int) int {
		fd, err := syscall.Open(name, flags|syscall.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "p"), 0o600); err != nil {
		t.Fatal(err)
	}
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(pipe[0]); syscall.Close(pipe[1]) })
	const oPath = 0x200000
	file := whole(t, begin{size: 5, targets: 1, body: bodyFile}, "", a)
	for name, c := range map[string]struct {
		packet []byte
		fd     int
	}{
		"nonsense":         {[]byte("LHLO front\r\n"), -1},
		"other version":    {append([]byte("LW\x02"), file[headSize:]...), -1},
		"incomplete":       {whole(t, begin{size: 5, targets: 1}, "", a), -1},
		"no descriptor":    {file, -1},
		"not asked for":    {whole(t, begin{targets: 1}, "", a), open(dir+"/f", syscall.O_RDONLY)},
		"device":           {file, int(null.Fd())},
		"directory":        {file, open(dir, syscall.O_RDONLY)},
		"FIFO":             {file, open(dir+"/p", syscall.O_RDWR)},
		"pipe":             {file, pipe[0]},
		"for writing only": {file, open(dir+"/f", syscall.O_WRONLY)},
		"only a path":      {file, open(dir+"/f", oPath)},
		"too short":        {whole(t, begin{size: 6, targets: 1, body: bodyFile}, "", a), open(dir+"/f", syscall.O_RDONLY)},
		"without content":  {file, open("/proc/self/status", syscall.O_RDONLY)},
	} {
		conn := dialRaw(t, path)
		if err := conn.send(c.packet, c.fd); err != nil {
			t.Fatal(name, err)
		}
		err := conn.receive(func(packet []byte, _ int) error {
			return frames(packet, func(_ byte, payload []byte) error { return refused(payload) })
		})
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: answer is %v", name, err)
		}
		if err := conn.receive(func([]byte, int) error { return nil }); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the connection goes on: %v", name, err)
		}
	}
}

// Packets that are too large, or bring several descriptors, leave none of them behind.
func TestDescriptorsAreClosed(t *testing.T) {
	path := socketPath(t)
	serve(t, &Server{Writer: good}, path)
	before := descriptors(t)
	file := whole(t, begin{size: 0, targets: 1, body: bodyFile}, "", owned("/r"))
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	fd := int(f.Fd())
	for _, c := range []struct {
		packet []byte
		fds    []int
		ok     bool
	}{
		{file, []int{fd}, true},
		{file, []int{fd, fd}, false},
		{file, []int{fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd, fd}, false},
		{append(bytes.Clone(file), make([]byte, maxPacket)...), []int{fd}, false},
	} {
		conn := dialRaw(t, path)
		if _, _, err := conn.conn.WriteMsgUnix(c.packet, syscall.UnixRights(c.fds...), nil); err != nil {
			t.Fatal(err)
		}
		kind := byte(0)
		_ = conn.receive(func(packet []byte, _ int) error {
			kind = packet[headSize]
			return nil
		})
		if ok := kind == frameResult; ok != c.ok {
			t.Errorf("%d descriptors, %d octets: answer is %q", len(c.fds), len(c.packet), kind)
		}
		conn.conn.Close()
	}
	f.Close()
	// The server closes its ends a moment later.
	for range 1_000_000 {
		if descriptors(t) <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d descriptors are open, %d were before", descriptors(t), before)
}

func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(all)
}
