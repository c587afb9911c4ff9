package writer

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

const benchEnv = "WRITER_TEST_SERVE"

// TestServeChild is a writer process, for benchmarks.
func TestServeChild(t *testing.T) {
	path := os.Getenv(benchEnv)
	if path == "" {
		t.Skip("runs as the child of BenchmarkDeliver")
	}
	durability := maildir.Full
	if os.Getenv(benchEnv+"_SYNC") == "none" {
		durability = maildir.None
	}
	s := &Server{
		Writer: &maildir.Writer{Durability: durability, MinUID: 1}, Authorize: allow,
		FrontUID: uint32(os.Getuid()), Log: slog.New(slog.DiscardHandler),
	}
	ln := listen(t, path)
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	go s.Serve(ln)
	fmt.Println("serving")
	<-ctx.Done()
	s.Shutdown(context.Background())
}

// BenchmarkDeliver compares a delivery by this process with one by a writer process:
// what the second process costs is the difference. As root, each copy is another
// account's.
func BenchmarkDeliver(b *testing.B) {
	deliverer := func(b *testing.B, two bool, sync string) interface {
		Deliver(context.Context, maildir.Body, []maildir.Target, func(int, maildir.Result))
	} {
		if !two {
			d := maildir.Full
			if sync == "none" {
				d = maildir.None
			}
			return &maildir.Writer{Durability: d, MinUID: 1}
		}
		path := socketPath(b)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestServeChild$")
		cmd.Env = append(os.Environ(), benchEnv+"="+path, benchEnv+"_SYNC="+sync)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		check(b, err)
		check(b, cmd.Start())
		b.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		})
		if lines := bufio.NewScanner(out); !lines.Scan() {
			b.Fatal("no writer")
		}
		c := &Client{Address: path}
		b.Cleanup(func() { c.Close() })
		return c
	}
	for _, sync := range []string{"none", "full"} {
		for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
			for _, sessions := range []int{1, 8} {
				for _, two := range []bool{false, true} {
					b.Run(fmt.Sprintf("sync=%s/size=%dKiB/sessions=%d/processes=%d", sync, size>>10, sessions, map[bool]int{false: 1, true: 2}[two]), func(b *testing.B) {
						dir := os.Getenv("WRITER_BENCH_DIR")
						if dir == "" && sync == "none" {
							dir = "/dev/shm"
						}
						root, err := os.MkdirTemp(dir, "writer-bench")
						check(b, err)
						defer os.RemoveAll(root)
						target := maildir.Target{Root: filepath.Join(root, "home"), Path: "Maildir", Header: make([]byte, 500)}
						if os.Geteuid() == 0 {
							target.Owner = &maildir.Owner{UID: bobUID, GID: bobGID}
						} else {
							target.Owner = &maildir.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
						}
						check(b, os.Chmod(root, 0o711))
						mkdir(b, target.Root, int(target.Owner.UID), int(target.Owner.GID), 0o700)
						w := deliverer(b, two, sync)
						body := text(string(make([]byte, size)))
						one := func() {
							w.Deliver(b.Context(), body, []maildir.Target{target}, func(_ int, r maildir.Result) {
								if r.Err != nil {
									b.Error(r.Err)
								}
							})
						}
						one() // makes the mailbox and the connection
						b.SetBytes(int64(size))
						b.ResetTimer()
						b.SetParallelism((sessions + 1) / 2)
						if sessions == 1 {
							for range b.N {
								one()
							}
							return
						}
						b.RunParallel(func(p *testing.PB) {
							for p.Next() {
								one()
							}
						})
					})
				}
			}
		}
	}
}

// BenchmarkBody compares ways for a body to travel: through the socket and as a
// memfd. The other side does nothing with it but read it.
func BenchmarkBody(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 256 << 10} {
		for _, way := range []string{"inline", "memfd"} {
			b.Run(fmt.Sprintf("size=%dKiB/%s", size>>10, way), func(b *testing.B) {
				c := pair(b, &Server{Writer: fake(func(_ context.Context, body maildir.Body, t maildir.Target) maildir.Result {
					if body.File != nil {
						buf := make([]byte, body.Size)
						if _, err := body.File.ReadAt(buf, 0); err != nil {
							return maildir.Result{Err: err}
						}
					}
					return maildir.Result{File: t.Root}
				})})
				data := make([]byte, size)
				targets := []maildir.Target{owned("/r")}
				b.SetBytes(int64(size))
				for b.Loop() {
					body := maildir.Body{Data: data, Size: int64(size)}
					if way == "memfd" {
						f, err := memfd(data)
						check(b, err)
						body = maildir.Body{File: f, Size: int64(size)}
					}
					c.Deliver(b.Context(), body, targets, func(_ int, r maildir.Result) {
						if r.Err != nil {
							b.Error(r.Err)
						}
					})
					if body.File != nil {
						body.File.Close()
					}
				}
			})
		}
	}
}

func memfd(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "message")
	_, err = f.Write(data)
	return f, err
}
