// Package command runs the programs that an administrator has configured, such as the
// one that tells a user of a full mailbox.
//
// What of a mail becomes part of a command line comes from strangers, so there is no
// shell: each argument is a word of its own, and one that a value begins cannot become
// an option. A program gets one unprivileged account (never root's), the root directory
// to work in, an environment of its own, and none of this process's descriptors.
// Time, output and number are bounded; it ends with all its children that have not left
// its process group.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Account is whom a program runs as.
type Account struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups
}

// Runner runs programs. The zero value runs them as this process, if that is not root.
// Fields must not change after the first call; its methods are safe for concurrent use.
type Runner struct {
	Account  *Account      // nil: whom this process runs as
	Env      []string      // beside PATH and LC_ALL
	Parallel int           // programs at a time, others wait; 0: 8
	Timeout  time.Duration // for one program, with the wait for its turn; 0: 30 s
	Output   int           // octets of what it says that are kept; 0: 4096

	once  sync.Once
	slots chan struct{}
}

// Result is how a program ended.
type Result struct {
	Status int    // exit status; -1: a signal ended it
	Output string // the beginning of what it wrote to standard output and standard error
}

// What may go wrong, for errors.Is, besides what the operating system says.
var (
	ErrRoot    = errors.New("a program must not run as root")
	ErrTimeout = errors.New("program took too long")
	ErrOption  = errors.New("value would be taken for an option")
)

// grace is how long output is waited for that a child holds open.
const grace = time.Second

// Run runs argv, the first of which is an absolute path, with stdin (nil: nothing) as
// its standard input, which is not read any more once Run has returned. An error means
// that it did not run to its end: it was not started, or ErrTimeout, or ctx ended. A
// status other than 0 is no error here.
func (r *Runner) Run(ctx context.Context, argv []string, stdin io.Reader) (Result, error) {
	res := Result{Status: -1}
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return res, fmt.Errorf("program %q is no absolute path", argv)
	}
	attr, err := r.attributes()
	if err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, orDefault(r.Timeout, 30*time.Second), ErrTimeout)
	defer cancel()
	r.once.Do(func() { r.slots = make(chan struct{}, orDefault(r.Parallel, 8)) })
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return res, context.Cause(ctx)
	}
	out := &head{most: orDefault(r.Output, 4096)}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}, r.Env...)
	in := &input{r: stdin}
	if stdin != nil {
		cmd.Stdin = in
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = attr
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	ended := make(chan error, 1)
	go func() {
		err := start(cmd)
		if err == nil {
			err = cmd.Wait()
		}
		<-r.slots // the place of one that goes on stays taken
		ended <- err
	}()
	if err = wait(ctx, ended); errors.Is(err, errGoesOn) {
		in.close()
		res.Output = out.String()
		return res, fmt.Errorf("%s: %w: %w", argv[0], context.Cause(ctx), err)
	}
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // children that it has left behind
	}
	res.Output = out.String()
	var exit *exec.ExitError
	switch {
	case err != nil && ctx.Err() != nil:
		return res, fmt.Errorf("%s: %w", argv[0], context.Cause(ctx))
	case errors.As(err, &exit):
		res.Status = exit.ExitCode()
		return res, nil
	case errors.Is(err, exec.ErrWaitDelay): // it has ended well; a child held its output
	case err != nil:
		return res, err
	}
	res.Status = 0
	return res, nil
}

// errGoesOn: a program that has become another account cannot be killed.
var errGoesOn = errors.New("it cannot be ended, and goes on")

// wait waits for a program that ends at the end of ctx at the latest, or soon after.
func wait(ctx context.Context, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(3 * grace)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
		return errGoesOn
	}
}

// input is what a program reads, until Run returns.
type input struct {
	mu sync.Mutex // held while r is read
	r  io.Reader
}

func (i *input) Read(p []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.r == nil {
		return 0, errGoesOn
	}
	return i.r.Read(p)
}

func (i *input) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.r = nil
}

// start starts a program from a thread without ambient capabilities (capabilities(7)),
// which would be the program's too. Nothing else needs them: they are for programs that
// are started. Descriptors that this process was started with do not go on either; those
// that it has opened never do.
func start(cmd *exec.Cmd) error {
	const prCapAmbient, clearAll = 47, 4
	const closeRange, closeOnExec = 436, 4 // close_range(2); an older kernel than Linux 5.11 does not know it
	syscall.RawSyscall(closeRange, 3, 1<<32-1, closeOnExec)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, clearAll, 0, 0, 0, 0); errno != 0 && errno != syscall.EINVAL {
		return os.NewSyscallError("prctl", errno) // EINVAL: before Linux 4.3, which has none
	}
	return cmd.Start()
}

// attributes give a program its account and a process group of its own.
func (r *Runner) attributes() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	a := r.Account
	switch {
	case a == nil && (os.Geteuid() == 0 || os.Getegid() == 0):
		return nil, fmt.Errorf("%w: an account has to be named", ErrRoot)
	case a == nil:
	case a.UID == 0 || a.GID == 0:
		return nil, fmt.Errorf("%w: uid %d, gid %d", ErrRoot, a.UID, a.GID)
	case int(a.UID) == os.Geteuid() && os.Geteuid() == os.Getuid(): // it is this process
	default:
		attr.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
	}
	return attr, nil
}

// head keeps the beginning of what is written to it, and takes all.
type head struct {
	mu   sync.Mutex
	text []byte
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text = append(h.text, p[:min(len(p), h.most-len(h.text))]...)
	return len(p), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return string(h.text)
}

// Check says what is wrong with a command line of a configuration: the first word is a
// path, and each "{name}" is one of names.
func Check(args, names []string) error {
	if len(args) == 0 || !filepath.IsAbs(args[0]) || strings.ContainsAny(args[0], "{}") {
		return errors.New("the first word is no absolute path")
	}
	known := make(map[string]string)
	for _, n := range names {
		known[n] = "x"
	}
	_, err := Expand(args, known)
	return err
}

// Expand puts values in the place of "{name}" in arguments. "{{" is a brace. A value
// with NUL cannot be an argument; one that begins an argument with "-" is ErrOption,
// unless "--" is an argument before it, behind which programs take no options.
func Expand(args []string, values map[string]string) ([]string, error) {
	expanded := make([]string, len(args))
	options := true
	for i, arg := range args {
		text, err := ExpandText(arg, values)
		if err != nil {
			return nil, err
		}
		if strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("NUL in argument %d", i)
		}
		options = options && arg != "--"
		if options && strings.HasPrefix(text, "-") && !strings.HasPrefix(arg, "-") {
			return nil, fmt.Errorf("%w: %q in place of %q", ErrOption, text, arg)
		}
		expanded[i] = text
	}
	return expanded, nil
}

// ExpandText is Expand of one text that is no argument.
func ExpandText(text string, values map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "{")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, "{") {
			b.WriteByte('{')
			text = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := values[name]
		if !closed || !known {
			return "", fmt.Errorf("{%s} is not known", clip(name))
		}
		b.WriteString(value)
		text = after
	}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
