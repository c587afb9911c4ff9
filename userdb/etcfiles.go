package userdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxEtcFile bounds the account files in octets.
const maxEtcFile = 64 << 20

// etcFiles reads /etc/passwd and /etc/group themselves.
type etcFiles struct{ passwd, group string }

func (etcFiles) nss() bool { return false }

func (e etcFiles) account(_ context.Context, name string) (*account, error) {
	data, err := readBounded(e.passwd)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		// The name is compared first: a broken line of somebody else is not in the way. Lines with + and - belong to NIS.
		if len(line) <= len(name) || line[len(name)] != ':' || line[:len(name)] != name || line[0] == '+' || line[0] == '-' {
			continue
		}
		acc, err := parseAccount(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", e.passwd, n, err)
		}
		return acc, nil
	}
	return nil, nil
}

// accounts are those of all lines that can be read.
func (e etcFiles) accounts(context.Context) ([]account, error) {
	data, err := readBounded(e.passwd)
	if err != nil {
		return nil, err
	}
	return parseAccounts(string(data)), nil
}

// parseAccounts reads the lines of passwd(5); those that are none belong to nobody.
func parseAccounts(text string) (all []account) {
	for line := range strings.Lines(text) {
		if line[0] == '+' || line[0] == '-' || line[0] == '#' {
			continue
		}
		if acc, err := parseAccount(line); err == nil {
			all = append(all, *acc)
		}
	}
	return all
}

func (e etcFiles) groups(_ context.Context, name string) ([]uint32, error) {
	data, err := readBounded(e.group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var gids []uint32
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) != 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			continue
		}
		// A group whose number cannot be read gives no right to anything; the mail need not wait for it.
		if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
			gids = append(gids, uint32(gid))
		}
	}
	return gids, nil
}

// parseAccount reads one whole line as passwd(5) has it. A line without its newline has been cut short.
func parseAccount(line string) (*account, error) {
	line, whole := strings.CutSuffix(line, "\n")
	f := strings.Split(line, ":")
	if !whole || len(f) != 7 || f[0] == "" {
		return nil, fmt.Errorf("account %+q: %d fields of 7, or the line is cut short", clip(f[0]), len(f))
	}
	uid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %+q: uid %+q is not a number", clip(f[0]), clip(f[2]))
	}
	gid, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("account %+q: gid %+q is not a number", clip(f[0]), clip(f[3]))
	}
	return &account{name: f[0], uid: uint32(uid), gid: uint32(gid), home: f[5]}, nil
}

// readBounded reads a regular file of the system.
func readBounded(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxEtcFile+1))
	if err == nil && len(data) > maxEtcFile {
		err = fmt.Errorf("%s: more than %d octets", path, maxEtcFile)
	}
	return data, err
}
