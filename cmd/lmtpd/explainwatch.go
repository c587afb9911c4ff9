package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/userdb"
)

// askedDatabases remembers what the databases of a chain said about an address.
type askedDatabases struct {
	chain   userdb.Chain
	answers map[int]string // by index into chain
}

// watch puts an ear before each database of a chain.
func (a *askedDatabases) watch(users userdb.Database) userdb.Database {
	chain, ok := users.(userdb.Chain)
	if !ok {
		chain = userdb.Chain{{Database: users}}
	}
	a.chain = chain
	watched := make(userdb.Chain, len(chain))
	for i, entry := range chain {
		watched[i] = userdb.Entry{Database: &askedDatabase{entry.Database, a, i}, Domains: entry.Domains}
	}
	return watched
}

type askedDatabase struct {
	userdb.Database
	all   *askedDatabases
	index int
}

func (d *askedDatabase) Lookup(ctx context.Context, a userdb.Address) (*userdb.User, error) {
	u, err := d.Database.Lookup(ctx, a)
	text := ""
	switch {
	case err == nil && u != nil:
		text = "found " + strconv.Quote(u.Name)
	case errors.Is(err, userdb.ErrNoSuchDomain):
		text = "knows nobody of this domain"
	case errors.Is(err, userdb.ErrNoSuchUser):
		text = "no such user"
		if _, why, ok := strings.Cut(err.Error(), userdb.ErrNoSuchUser.Error()); ok {
			text += why
		}
	case errors.Is(err, userdb.ErrDisabled):
		text = "known, and takes no mail"
	case errors.Is(err, userdb.ErrBadRecord):
		text = "known, but its record cannot be used"
	default:
		text = fmt.Sprintf("no answer: %v", err)
	}
	if d.all.answers == nil {
		d.all.answers = map[int]string{}
	}
	d.all.answers[d.index] = text
	return u, err
}

// inOrder is a line for each database, asked or not.
func (a *askedDatabases) inOrder(addr userdb.Address) (lines []string) {
	for i, entry := range a.chain {
		text, asked := a.answers[i]
		switch {
		case asked:
		case len(entry.Domains) > 0 && !slices.Contains(entry.Domains, addr.Domain):
			text = "not asked: it answers for " + strings.Join(quotedAll(entry.Domains), ", ") + " only"
		default:
			text = "not asked: the one before has answered"
		}
		lines = append(lines, entry.Database.String()+": "+text)
	}
	return lines
}

func quotedAll(list []string) []string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return quoted
}

// daemonView is what running lmtpds see of the file system: systemd's sandbox gives
// them one of their own.
type daemonView struct {
	proc   string // /proc
	role   string // the subcommand of the processes that write mail
	config string // their configuration, an absolute path
}

func newDaemonView(c *config, path, proc string) daemonView {
	v := daemonView{proc: proc, role: "serve", config: path}
	if abs, err := filepath.Abs(path); err == nil {
		v.config = abs
	}
	if c.Writer.Socket.Network != "" {
		v.role = "writer" // the front sees no mailbox, and needs none
	}
	return v
}

// unit is what the service of these processes is called in the Debian package.
func (v daemonView) unit() string {
	if v.role == "writer" {
		return "lmtpd-writer"
	}
	return "lmtpd"
}

// compare is the reason why the processes that write mail cannot write below root,
// which this one can; nil if there is none.
func (v daemonView) compare(root string) error {
	if stateOf(root) == rootReadOnly {
		return fmt.Errorf("%s is on a file system that is mounted read-only: %w", root, syscall.EROFS)
	}
	for _, pid := range v.writers() {
		who := fmt.Sprintf("the running lmtpd (process %d)", pid)
		switch stateOf(filepath.Join(v.proc, strconv.Itoa(pid), "root") + root) {
		case rootHidden:
			return fmt.Errorf("%w for %s: %s is hidden from it (ProtectHome=, TemporaryFileSystem=, PrivateTmp=); see systemctl cat %s", maildir.ErrRoot, who, root, v.unit())
		case rootReadOnly:
			return fmt.Errorf("%s sees %s read-only (ProtectSystem=strict): %w; add ReadWritePaths=%s to its service (systemctl edit %s)", who, root, syscall.EROFS, root, v.unit())
		}
	}
	return nil
}

// owner is whom the processes that write mail run as; nil if none does, or as root.
func (v daemonView) owner() *maildir.Owner {
	for _, pid := range v.writers() {
		// Real, effective, saved and file system ids.
		if uid, gid := v.ids(pid, "Uid"), v.ids(pid, "Gid"); len(uid) == 4 && len(gid) == 4 && uid[3] != 0 && gid[3] != 0 {
			groups := slices.DeleteFunc(v.ids(pid, "Groups"), func(g uint32) bool { return g == 0 })
			return &maildir.Owner{UID: uid[3], GID: gid[3], Groups: groups}
		}
	}
	return nil
}

// ids are those of a process, by their key in /proc/PID/status.
func (v daemonView) ids(pid int, key string) (list []uint32) {
	data, _ := os.ReadFile(filepath.Join(v.proc, strconv.Itoa(pid), "status"))
	_, rest, _ := strings.Cut(string(data), "\n"+key+":")
	line, _, _ := strings.Cut(rest, "\n")
	for _, f := range strings.Fields(line) {
		if n, err := strconv.ParseUint(f, 10, 32); err == nil {
			list = append(list, uint32(n))
		}
	}
	return list
}

// frontUID is the uid of "lmtpd serve", as far as a process of uid can tell: its own,
// unless that is root's, who only looks; that of the running one; or the one that the
// configuration has for it. sure: it is not a guess.
func (c *config) frontUID(uid int, v daemonView) (_ int, sure bool) {
	if uid != 0 {
		return uid, true
	}
	v.role = "serve"
	for _, pid := range v.writers() {
		if ids := v.ids(pid, "Uid"); len(ids) == 4 {
			return int(ids[1]), true
		}
	}
	if c.Writer.Socket.Network != "" {
		if front, err := lookupID("user", c.Writer.FrontUser); err == nil {
			return front, true
		}
	}
	return uid, false
}

type rootState int

const (
	rootUnknown rootState = iota
	rootThere
	rootHidden
	rootReadOnly
)

const stReadOnly = 1 // ST_RDONLY of statfs(2)

func stateOf(path string) rootState {
	var st syscall.Statfs_t
	switch err := syscall.Statfs(path, &st); {
	case err == nil && st.Flags&stReadOnly != 0:
		return rootReadOnly
	case err == nil:
		return rootThere
	case err == syscall.ENOENT || err == syscall.ENOTDIR:
		return rootHidden
	}
	return rootUnknown
}

// maxWriters bounds how many processes are looked at.
const maxWriters = 8

// writers are the lmtpd processes of this machine that write mail.
func (v daemonView) writers() (pids []int) {
	entries, err := os.ReadDir(v.proc)
	if err != nil {
		return nil
	}
	own, _ := os.Readlink(filepath.Join(v.proc, "self/ns/pid"))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || len(pids) == maxWriters {
			continue
		}
		if other, _ := os.Readlink(filepath.Join(v.proc, e.Name(), "ns/pid")); other != own {
			continue // in a container of its own
		}
		line, err := os.ReadFile(filepath.Join(v.proc, e.Name(), "cmdline"))
		args := bytes.Split(line, []byte{0})
		if err == nil && len(args) > 1 && filepath.Base(string(args[0])) == "lmtpd" && string(args[1]) == v.role && v.configOf(e.Name(), args[2:]) == v.config {
			pids = append(pids, pid)
		}
	}
	return pids
}

// configOf is the configuration that a process was started with, as far as its
// command line says.
func (v daemonView) configOf(pid string, args [][]byte) string {
	path := defaultConfigPath
	for i, arg := range args {
		word := string(arg)
		switch name, value, ok := strings.Cut(word, "="); {
		case ok && (name == "--config" || name == "-c"):
			path = value
		case (word == "-c" || word == "--config") && i+1 < len(args):
			path = string(args[i+1])
		case !ok && strings.HasPrefix(word, "-c") && len(word) > 2:
			path = word[2:]
		}
	}
	if !filepath.IsAbs(path) {
		dir, _ := os.Readlink(filepath.Join(v.proc, pid, "cwd"))
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}
