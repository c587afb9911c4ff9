package userdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what a source may say about one account, in octets.
const maxAnswer = 256 << 10

// getentCmd asks NSS through getent(1). The path is absolute.
type getentCmd struct{ path string }

func (getentCmd) nss() bool { return true }

func (g getentCmd) account(ctx context.Context, name string) (*account, error) {
	out, err := g.run(ctx, maxAnswer, "passwd", "--", name)
	if err != nil {
		if ee, ok := errors.AsType[*exec.ExitError](err); ok && ee.ExitCode() == 2 && len(out) == 0 { // getent(1): key not found
			return nil, nil
		}
		return nil, err
	}
	if strings.Count(out, "\n") != 1 {
		return nil, fmt.Errorf("%s passwd: expected one line, got %d octets with %d", g.path, len(out), strings.Count(out, "\n"))
	}
	acc, err := parseAccount(out)
	if err != nil {
		return nil, fmt.Errorf("%s passwd: %w", g.path, err)
	}
	return acc, nil
}

// groups has the semantics of getgrouplist(3). The answer is the name, which may hold spaces, padded; then numbers.
func (g getentCmd) groups(ctx context.Context, name string) ([]uint32, error) {
	out, err := g.run(ctx, maxAnswer, "initgroups", "--", name)
	if err != nil {
		return nil, err
	}
	numbers, ok := strings.CutPrefix(out, name)
	if !ok || !strings.HasSuffix(out, "\n") {
		return nil, fmt.Errorf("%s initgroups: answer %+q is not about %+q or is cut short", g.path, clip(out), name)
	}
	var gids []uint32
	for _, f := range strings.Fields(numbers) {
		gid, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s initgroups: group %+q is not a number", g.path, clip(f))
		}
		gids = append(gids, uint32(gid))
	}
	return gids, nil
}

// accounts are all that the name service names.
func (g getentCmd) accounts(ctx context.Context) ([]account, error) {
	out, err := g.run(ctx, maxEtcFile, "passwd")
	if err != nil {
		return nil, err
	}
	return parseAccounts(out), nil
}

// run gives standard output, of up to most octets. The process and its children get no environment of ours and are killed
// when ctx ends.
func (g getentCmd) run(ctx context.Context, most int, database string, key ...string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, g.path, append([]string{database}, key...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// If a module leaves a child behind that holds the pipe, Wait does not wait for it longer than this.
	cmd.WaitDelay = time.Second
	out, errOut := boundedBuffer{cancel: cancel, most: most}, boundedBuffer{cancel: cancel, most: maxAnswer}
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s %s gave no usable answer: %w", g.path, database, context.Cause(ctx))
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("%w; correct the path of getent", err)
	case err != nil:
		said := strings.TrimSpace(errOut.buf.String())
		return out.buf.String(), fmt.Errorf("%s %s: %w (it said %+q)", g.path, database, err, clip(said))
	}
	return out.buf.String(), nil
}

// boundedBuffer ends the process that says too much. Closing the pipe is not enough where SIGPIPE is ignored.
type boundedBuffer struct {
	buf    bytes.Buffer // not embedded: its ReadFrom would go round Write
	cancel context.CancelCauseFunc
	most   int // octets
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > b.most {
		err := fmt.Errorf("answer is longer than %d octets", b.most)
		b.cancel(err)
		return 0, err
	}
	return b.buf.Write(p)
}
