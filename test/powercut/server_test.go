package powercut

import (
	"context"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The disk lives in a process of its own, which never touches what is mounted on
// it: a process that waited for itself in the kernel could not even be killed.

// diskNode is the disk as a file.
type diskNode struct {
	fs.Inode
	d *disk
}

var _ = (fs.NodeOpener)((*diskNode)(nil))
var _ = (fs.NodeReader)((*diskNode)(nil))
var _ = (fs.NodeWriter)((*diskNode)(nil))
var _ = (fs.NodeFsyncer)((*diskNode)(nil))
var _ = (fs.NodeGetattrer)((*diskNode)(nil))
var _ = (fs.NodeSetattrer)((*diskNode)(nil))

func (n *diskNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (n *diskNode) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	p = p[:max(0, min(int64(len(p)), n.d.size()-off))]
	n.d.read(p, off)
	return fuse.ReadResultData(p), 0
}

func (n *diskNode) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(p)) > n.d.size() {
		return 0, syscall.ENOSPC
	}
	n.d.write(p, off)
	return uint32(len(p)), 0
}

func (n *diskNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.d.flush()
	return 0
}

func (n *diskNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blksize = syscall.S_IFREG|0o600, uint64(n.d.size()), pageSize
	out.Blocks = out.Size / 512
	return 0
}

func (n *diskNode) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.Getattr(ctx, f, out)
}

type diskRoot struct {
	fs.Inode
	d *disk
}

func (r *diskRoot) OnAdd(ctx context.Context) {
	n := r.NewPersistentInode(ctx, &diskNode{d: r.d}, fs.StableAttr{Mode: syscall.S_IFREG})
	r.AddChild("disk", n, false)
}

// Remote is what the tests ask of the disk's process.
type Remote struct{ d *disk }

// Entry is a log entry without its data.
type Entry struct {
	Kind kind
	N    int
}

// Cut is a point of the log and what is kept of the writes before it.
type Cut struct {
	Point int
	Mode  Mode
	Seed  uint64
}

func (r *Remote) Begin(struct{}, *struct{}) error { r.d.begin(); return nil }
func (r *Remote) Mark(n int, _ *struct{}) error   { r.d.mark(n); return nil }
func (r *Remote) Cut(c Cut, _ *struct{}) error    { return r.d.cut(c.Point, c.Mode, c.Seed) }
func (r *Remote) End(_ struct{}, entries *[]Entry) error {
	for _, e := range r.d.end() {
		*entries = append(*entries, Entry{e.kind, e.n})
	}
	return nil
}

// serveDisk is the disk's process: SIZE LATENCY DIRECTORY, and a socket as
// descriptor 3.
func serveDisk(args []string) error {
	size, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return err
	}
	latency, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	d := newDisk(size, latency)
	opts := &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powercut", MaxWrite: 512 << 10, MaxBackground: 64}}
	server, err := fs.Mount(args[2], &diskRoot{d: d}, opts)
	if err != nil {
		return err
	}
	control, err := net.FileConn(os.NewFile(3, "control"))
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(&Remote{d}); err != nil {
		return err
	}
	s.ServeConn(control) // until the tests hang up
	return server.Unmount()
}

// remoteDisk is a disk's process as tests see it.
type remoteDisk struct {
	path string // the disk as a file
	rpc  *rpc.Client
}

func startDisk(t *testing.T, size int64, latency time.Duration) *remoteDisk {
	t.Helper()
	dir := filepath.Join(tempDir(t), "device")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &remoteDisk{
		path: filepath.Join(dir, "disk"),
		rpc:  startServer(t, "disk", strconv.FormatInt(size, 10), latency.String(), dir),
	}
	r.call(t, "Mark", 0, &struct{}{}) // it answers once it is mounted
	return r
}

func (r *remoteDisk) call(t *testing.T, method string, arg, reply any) {
	t.Helper()
	if err := r.rpc.Call("Remote."+method, arg, reply); err != nil {
		t.Fatalf("%s: %v", method, err)
	}
}

// startServer runs this program as a server that is asked over a socket, until
// the test ends.
func startServer(t *testing.T, name string, args ...string) *rpc.Client {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := os.NewFile(uintptr(pair[0]), "theirs"), os.NewFile(uintptr(pair[1]), "ours")
	cmd := role(name, args...)
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	client := rpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		cmd.Wait()
	})
	return client
}

// role runs this program again as something else than tests.
func role(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleEnv+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}
