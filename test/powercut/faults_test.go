package powercut

import (
	"context"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A file system that hands everything to a directory below it, and fails where it
// is told to. It too is a process of its own.

// Rule is one fault: the nth call of an operation below a path.
type Rule struct {
	Under string // first element of the path
	Op    string // "" is none
	N     int    // from 0
	Errno syscall.Errno
	After bool // the call is done, and fails all the same
	Short bool // of a write, half is done
	Hang  bool // it waits for Release
}

// Call is an operation below a path that came for the nth time.
type Call struct {
	Under, Op string
	N         int
}

// Faults is what the tests ask of the file system.
type Faults struct {
	mu       sync.Mutex
	rule     Rule
	calls    []Call
	count    map[Call]int
	hit      bool
	released chan struct{}
	changed  *sync.Cond
}

func newFaults() *Faults {
	f := &Faults{count: make(map[Call]int), released: make(chan struct{})}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// Set sets the only rule and forgets all calls.
func (f *Faults) Set(r Rule, _ *struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rule, f.calls, f.count, f.hit, f.released = r, nil, make(map[Call]int), false, make(chan struct{})
	return nil
}

// Calls returns the calls since Set below a path.
func (f *Faults) Calls(under string, calls *[]Call) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c.Under == under {
			*calls = append(*calls, c)
		}
	}
	return nil
}

// Hit reports whether the rule has struck.
func (f *Faults) Hit(_ struct{}, hit *bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*hit = f.hit
	return nil
}

// Await returns once a call has come.
func (f *Faults) Await(c Call, _ *struct{}) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.count[Call{Under: c.Under, Op: c.Op}] <= c.N {
		f.changed.Wait()
	}
	return nil
}

// Release lets the call go on that hangs.
func (f *Faults) Release(struct{}, *struct{}) error { close(f.released); return nil }

// take is called for each operation on a path; do is the operation.
func (f *Faults) take(op, path string, do func() syscall.Errno) syscall.Errno {
	under, _, _ := strings.Cut(path, "/")
	f.mu.Lock()
	key := Call{Under: under, Op: op}
	n := f.count[key]
	f.count[key]++
	f.calls = append(f.calls, Call{under, op, n})
	f.changed.Broadcast()
	r, released := f.rule, f.released
	struck := r.Op == op && r.Under == under && r.N == n
	f.hit = f.hit || struck
	f.mu.Unlock()
	switch {
	case !struck, r.Short:
	case r.Hang:
		<-released
	case r.After:
		do()
		return r.Errno
	default:
		return r.Errno
	}
	return do()
}

// short reports whether the write that is coming is to be cut short.
func (f *Faults) short(path string) bool {
	under, _, _ := strings.Cut(path, "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rule.Short && f.rule.Under == under && f.rule.N == f.count[Call{Under: under, Op: "write"}]
}

type faultNode struct {
	*fs.LoopbackNode
	faults *Faults
}

var _ = (fs.NodeWrapChilder)((*faultNode)(nil))

func (n *faultNode) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	return &faultNode{ops.(*fs.LoopbackNode), n.faults}
}

func (n *faultNode) at(name string) string { return filepath.Join(n.Path(n.Root()), name) }

func (n *faultNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.faults.take("lookup", n.at(name), func() (e syscall.Errno) { ch, e = n.LoopbackNode.Lookup(ctx, name, out); return e })
	return ch, errno
}

func (n *faultNode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (ch *fs.Inode, errno syscall.Errno) {
	errno = n.faults.take("mkdir", n.at(name), func() (e syscall.Errno) { ch, e = n.LoopbackNode.Mkdir(ctx, name, mode, out); return e })
	return ch, errno
}

func (n *faultNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (ch *fs.Inode, fh fs.FileHandle, ff uint32, errno syscall.Errno) {
	errno = n.faults.take("create", n.at(name), func() (e syscall.Errno) {
		ch, fh, ff, e = n.LoopbackNode.Create(ctx, name, flags, mode, out)
		return e
	})
	if errno == 0 {
		// Direct: a short write shall reach the program, and not the page cache.
		fh, ff = &faultFile{fh.(*fs.LoopbackFile), n.at(name), n.faults}, ff|fuse.FOPEN_DIRECT_IO
	}
	return ch, fh, ff, errno
}

func (n *faultNode) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EOPNOTSUPP // it could not be named anyway
}

func (n *faultNode) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.faults.take("rename", n.at(name), func() syscall.Errno { return n.LoopbackNode.Rename(ctx, name, to, newName, flags) })
}

func (n *faultNode) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.faults.take("unlink", n.at(name), func() syscall.Errno { return n.LoopbackNode.Unlink(ctx, name) })
}

func (n *faultNode) Getattr(ctx context.Context, f fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.faults.take("getattr", n.at(""), func() syscall.Errno { return n.LoopbackNode.Getattr(ctx, f, out) })
}

func (n *faultNode) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.faults.take("setattr", n.at(""), func() syscall.Errno { return n.LoopbackNode.Setattr(ctx, f, in, out) })
}

func (n *faultNode) OpendirHandle(ctx context.Context, flags uint32) (fh fs.FileHandle, ff uint32, errno syscall.Errno) {
	errno = n.faults.take("opendir", n.at(""), func() (e syscall.Errno) { fh, ff, e = n.LoopbackNode.OpendirHandle(ctx, flags); return e })
	if errno == 0 {
		fh = &faultDir{fh.(dirStream), n.at(""), n.faults}
	}
	return fh, ff, errno
}

type faultFile struct {
	*fs.LoopbackFile
	path   string
	faults *Faults
}

// PassthroughFd keeps the kernel from going past this file system.
func (f *faultFile) PassthroughFd() (int, bool) { return 0, false }

func (f *faultFile) Write(ctx context.Context, p []byte, off int64) (n uint32, errno syscall.Errno) {
	if f.faults.short(f.path) {
		p = p[:len(p)/2]
	}
	errno = f.faults.take("write", f.path, func() (e syscall.Errno) { n, e = f.LoopbackFile.Write(ctx, p, off); return e })
	return n, errno
}

func (f *faultFile) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	var all []byte
	for _, p := range data {
		all = append(all, p...)
	}
	return f.Write(ctx, all, off)
}

func (f *faultFile) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	return f.faults.take("fsync", f.path, func() syscall.Errno { return f.LoopbackFile.Fsync(ctx, flags) })
}

func (f *faultFile) Flush(ctx context.Context) syscall.Errno {
	return f.faults.take("flush", f.path, func() syscall.Errno { return f.LoopbackFile.Flush(ctx) })
}

type dirStream interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
	fs.FileFsyncdirer
}

type faultDir struct {
	dirStream
	path   string
	faults *Faults
}

func (d *faultDir) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return d.faults.take("fsyncdir", d.path, func() syscall.Errno { return d.dirStream.Fsyncdir(ctx, flags) })
}

// serveFaults is the file system's process: BELOW MOUNTPOINT, and a socket as
// descriptor 3.
func serveFaults(args []string) error {
	faults := newFaults()
	root := &fs.LoopbackRoot{Path: args[0]}
	node := &faultNode{&fs.LoopbackNode{RootData: root}, faults}
	root.RootNode = node
	server, err := fs.Mount(args[1], node, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, FsName: "faults", Options: []string{"default_permissions"}}})
	if err != nil {
		return err
	}
	control, err := net.FileConn(os.NewFile(3, "control"))
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(faults); err != nil {
		return err
	}
	s.ServeConn(control)
	return server.Unmount()
}

// faultyDir is a directory on the failing file system.
type faultyDir struct {
	path, below string
	rpc         *rpc.Client
}

func startFaults(t *testing.T) *faultyDir {
	t.Helper()
	dir := tempDir(t)
	f := &faultyDir{path: filepath.Join(dir, "mnt"), below: filepath.Join(dir, "below")}
	for _, d := range []string{f.path, f.below} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.rpc = startServer(t, "faults", f.below, f.path)
	f.set(t, Rule{})
	return f
}

func (f *faultyDir) call(t *testing.T, method string, arg, reply any) {
	t.Helper()
	if err := f.rpc.Call("Faults."+method, arg, reply); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

func (f *faultyDir) set(t *testing.T, r Rule) {
	t.Helper()
	f.call(t, "Set", r, &struct{}{})
}
