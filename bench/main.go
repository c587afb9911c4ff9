package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	dir      string        // where everything is written
	out      string        // directory of RESULTS.md, "" prints the tables only
	short    bool          // shows that the harness works; its figures say nothing
	rounds   int           // of the plan
	measure  time.Duration // of each cell
	disk     int           // MiB
	only     *regexp.Regexp
	lmtpd    string // "" builds that of this tree
	mailbox  string // another line of its configuration
	protocol bool
}

func run(args []string) error {
	if len(args) == 0 || args[0] != "delivery" && args[0] != "protocol" {
		return errors.New("usage: bench delivery|protocol [flags]; -h lists the flags")
	}
	o := options{protocol: args[0] == "protocol"}
	f := flag.NewFlagSet("bench "+args[0], flag.ExitOnError)
	f.StringVar(&o.dir, "dir", "/var/tmp/lmtpd-bench", "`directory` for the file system and all else")
	f.StringVar(&o.out, "out", "", "`directory` in which to renew RESULTS.md and its pictures; none: print only")
	f.BoolVar(&o.short, "short", false, "a few messages of each scenario, lmtpd alone, in a plain directory")
	f.IntVar(&o.rounds, "rounds", 5, "how often each `number` is taken")
	f.DurationVar(&o.measure, "measure", 4*time.Second, "how long each measurement is")
	f.IntVar(&o.disk, "disk", 12<<10, "`MiB` of the file system")
	only := f.String("only", "", "`regexp` of \"scenario/contender\" to measure")
	f.StringVar(&o.mailbox, "mailbox", "", "`line` for [mailbox] of lmtpd's configuration, to see what a key costs")
	f.StringVar(&o.lmtpd, "lmtpd", "", "`program` to measure; none: build the one of this tree")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("what is %q?", f.Arg(0))
	}
	if o.short && *only == "" {
		*only = "^(cold|[a-e])/lmtpd$|^b/file|^c/" // each kind of contender, but not each cell
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if o.protocol {
		return benchProtocol(o)
	}
	return benchDelivery(o)
}

// benchDelivery is `bench delivery`.
func benchDelivery(o options) (err error) {
	b, err := o.newBench()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.disk.close()) }()
	plan := b.plan()
	kept := plan[:0]
	for _, e := range plan {
		if o.only.MatchString(e.scenario + "/" + e.contender) {
			kept = append(kept, e)
		}
	}
	r, err := b.run(kept)
	if err != nil {
		return err
	}
	return o.publish("delivery", deliveryTables(r), deliveryTargets(r))
}

// newBench finds the programs and makes the disk.
func (o options) newBench() (*bench, error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	b := &bench{
		root: os.Getuid() == 0, rounds: o.rounds, mailbox: o.mailbox,
		say: func(format string, args ...any) { fmt.Printf(format+"\n", args...) },
	}
	b.lmtpd = o.lmtpd
	var err error
	if b.lmtpd == "" {
		b.lmtpd = filepath.Join(o.dir, "lmtpd")
		if err := build(b.lmtpd, "./cmd/lmtpd", "."); err != nil {
			return nil, err
		}
	}
	if b.links, err = b.takesLinks(o.dir); err != nil {
		return nil, err
	}
	if o.short {
		b.rounds = 1
		b.pace = func(sc scenario) pace { return pace{each: max(1, 10/sc.sessions)} }
		b.disk = &disk{dir: o.dir}
		return b, nil
	}
	if !b.root {
		return nil, errors.New("only root can make a file system and start the contenders; -short needs no root")
	}
	for program, to := range map[string]*string{"dovecot": &b.dovecot, "postfix": &b.postfix} {
		if *to, err = exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("no %s here; bench/setup.sh installs it", program)
		}
	}
	b.pace = func(sc scenario) pace { return pace{warm: o.measure / 8, measure: o.measure} }
	b.disk, err = newDisk(o.dir, o.disk)
	return b, err
}

// build makes a program of this repository; below is the directory of its module.
func build(to, pkg, below string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", to, pkg)
	cmd.Dir = filepath.Join(root, below)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// moduleRoot is the directory of this repository.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}
