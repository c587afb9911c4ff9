package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that the benchmark has started, with all its children.
type process struct {
	name  string
	cmd   *exec.Cmd
	group *group // nil: control groups are not to be had
	log   string // file with its output
	ended chan error
}

// start runs a program in a control group of its own.
func start(name, log string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, log: log, ended: make(chan error, 1)}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM // it does not survive us
	if p.group, err = newGroup(); err == nil {
		dir, err := os.Open(p.group.dir)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		p.group.remove()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { p.ended <- cmd.Wait() }()
	return p, nil
}

// await returns once the server takes connections.
func (p *process) await(addr string) error {
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	for range 600 {
		select {
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("%s ended: %v\n%s", p.name, err, p.tail())
		default:
		}
		conn, err := net.Dial(network, addr)
		if err == nil {
			conn.Close()
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not listen on %s\n%s", p.name, addr, p.tail())
}

// stop ends the program in good order, and what it leaves behind by force.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case <-p.ended:
	case <-time.After(patience):
		err = fmt.Errorf("%s does not end", p.name)
		p.cmd.Process.Kill()
		<-p.ended
	}
	return errors.Join(err, p.group.remove())
}

// tail is the end of what the program has printed.
func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-2000):])
}

// group is a control group (version 2), which counts the processor time of all
// processes that have ever been in it.
type group struct{ dir string }

var errNoGroups = errors.New("no control groups (version 2) that can be written to")

func newGroup() (*group, error) {
	mount, err := groupMount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(mount, "lmtpd-bench-")
	if err != nil {
		return nil, errNoGroups
	}
	return &group{dir}, nil
}

func groupMount() (string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if field := strings.Fields(s.Text()); len(field) > 2 && field[2] == "cgroup2" {
			return field[1], nil
		}
	}
	return "", errNoGroups
}

// remove kills what is left in the group and removes it.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	var err error
	for range 200 {
		if err = os.Remove(g.dir); err == nil || os.IsNotExist(err) {
			return nil
		}
		os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// cpu is the time that the group has used so far, in user and kernel mode.
func (g *group) cpu() time.Duration {
	if g == nil {
		return 0
	}
	b, _ := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	return time.Duration(field(string(b), "usage_usec")) * time.Microsecond
}

// memory is the proportional set size of all processes of the group, in octets,
// and their number.
func (g *group) memory() (pss int64, processes int) {
	if g == nil {
		return 0, 0
	}
	b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	for pid := range strings.FieldsSeq(string(b)) {
		rollup, err := os.ReadFile("/proc/" + pid + "/smaps_rollup")
		if err != nil {
			continue // it has just ended
		}
		pss += field(string(rollup), "Pss:") << 10
		processes++
	}
	return pss, processes
}

// field gives the number behind a word at the beginning of a line.
func field(text, word string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == word {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}
