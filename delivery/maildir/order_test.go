package maildir

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The steps of a first delivery, whatever opens lie between them.
func TestOrder(t *testing.T) {
	made := []string{OpMkdir, OpMkdir, OpMkdir, OpMkdir} // box, cur, tmp, new
	for _, c := range []struct {
		durability Durability
		classic    bool
		want       []string
		order      SyncOrder
	}{
		{Full, false, []string{OpSyncParent, OpSyncParent, OpUnnamed, OpWrite, OpWriteBack, OpLink, OpSyncDir}, syncOnce},
		{Full, true, []string{OpSyncParent, OpSyncParent, OpCreate, OpWrite, OpWriteBack, OpRename, OpSyncDir}, syncOnce},
		{FileOnly, false, []string{OpUnnamed, OpWrite, OpSync, OpLink}, syncOnce},
		{Full, false, []string{OpSyncParent, OpSyncParent, OpUnnamed, OpWrite, OpSync, OpLink, OpSyncDir}, SyncStrict},
		{Full, true, []string{OpSyncParent, OpSyncParent, OpCreate, OpWrite, OpSync, OpRename, OpSyncDir}, SyncStrict},
		{FileOnly, false, []string{OpUnnamed, OpWrite, OpSync, OpLink}, SyncAuto},
		{FileOnly, true, []string{OpCreate, OpWrite, OpSync, OpRename}, SyncAuto},
		{None, false, []string{OpUnnamed, OpWrite, OpLink}, SyncAuto},
		{None, true, []string{OpCreate, OpWrite, OpRename}, SyncAuto},
	} {
		var got []string
		w := &Writer{Durability: c.durability, Order: c.order, Before: func(op, _ string) error {
			if c.classic && op == OpUnnamed {
				return classicOnly(op, "")
			}
			if op != OpRoot && op != OpOpen && op != OpChmod {
				got = append(got, op)
			}
			return nil
		}}
		delivered(t, w, Target{Root: memoryDir(t), Path: "box", Header: []byte("A: b\n")}, "x\n")
		if want := append(made[:4:4], c.want...); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("durability %v, classic %v, order %v: steps\n%q, want\n%q", c.durability, c.classic, c.order, got, want)
		}
	}
}

// traceEnv tells the test binary, run again below strace, where to deliver.
const traceEnv = "MAILDIR_TEST_TRACE"

func TestTracedChild(t *testing.T) {
	way, root, _ := strings.Cut(os.Getenv(traceEnv), ":")
	if root == "" {
		t.Skip("runs as the child of TestOrderTraced")
	}
	w := &Writer{}
	switch way {
	case "classic":
		w.Before = classicOnly
	case "once":
		w.Order = syncOnce
	}
	tg := Target{Root: root, Path: "box", Header: []byte("A: b\n")}
	if way == "file" {
		r := deliverBody(t, w, tg, spooled(t, root, "x\n"))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return
	}
	delivered(t, w, tg, "x\n")
}

// What the kernel is asked for, in this order: this holds the seam's order to
// the system calls themselves.
func TestOrderTraced(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	call := regexp.MustCompile(`^\d+ +(\w+)\((.*)\) += (\d+)`)
	for way, want := range map[string][]string{
		"unnamed": {
			"mkdirat box", "mkdirat cur", "mkdirat tmp", "mkdirat new",
			"fsync ROOT", "fsync ROOT/box", "openat O_TMPFILE", "writev file", "fsync file", "linkat new/", "fsync ROOT/box/new",
		},
		"once": {
			"mkdirat box", "mkdirat cur", "mkdirat tmp", "mkdirat new",
			"fsync ROOT", "fsync ROOT/box", "openat O_TMPFILE", "writev file", "sync_file_range file", "linkat new/", "fsync ROOT/box/new",
		},
		"classic": {
			"mkdirat box", "mkdirat cur", "mkdirat tmp", "mkdirat new",
			"fsync ROOT", "fsync ROOT/box", "openat O_EXCL", "writev file", "fsync file", "renameat2 new/", "fsync ROOT/box/new",
		},
		"file": {
			"mkdirat box", "mkdirat cur", "mkdirat tmp", "mkdirat new",
			"fsync ROOT", "fsync ROOT/box", "openat O_TMPFILE", "writev file", "copy_file_range file", "fsync file", "linkat new/", "fsync ROOT/box/new",
		},
	} {
		t.Run(way, func(t *testing.T) {
			root := memoryDir(t)
			log := filepath.Join(t.TempDir(), "trace")
			cmd := exec.Command(strace, "-f", "-y", "-s0", "-o", log,
				"-e", "trace=mkdirat,fsync,sync_file_range,fdatasync,openat,writev,pwritev,copy_file_range,linkat,renameat2",
				os.Args[0], "-test.run=^TestTracedChild$")
			cmd.Env = append(os.Environ(), traceEnv+"="+way+":"+root)
			if out, err := cmd.CombinedOutput(); err != nil {
				if strings.Contains(string(out), "ptrace") {
					t.Skipf("strace may not trace here: %s", out)
				}
				t.Fatalf("%v: %s", err, out)
			}
			trace, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range joined(string(trace)) {
				m := call.FindStringSubmatch(line)
				if m == nil || !strings.Contains(line, root) {
					continue
				}
				what := ""
				switch name, args := m[1], m[2]; name {
				case "openat":
					switch {
					case strings.Contains(args, "O_TMPFILE"):
						what = "O_TMPFILE"
					case strings.Contains(args, "O_EXCL") && strings.Contains(args, "/box/tmp"):
						what = "O_EXCL"
					default:
						continue
					}
				case "linkat", "renameat2":
					what = "new/"
					if !strings.Contains(args, "<"+root+"/box/new>") {
						what = args
					}
				case "mkdirat":
					what = strings.Trim(strings.Split(args, ", ")[1], `".`)
					if what == "" {
						what = nextMkdir(got) // -s0 hides the name
					}
				default: // on a descriptor
					path := args[strings.Index(args, "<")+1 : strings.Index(args, ">")]
					if name == "copy_file_range" {
						path = args[strings.LastIndex(args, "<")+1 : strings.LastIndex(args, ">")]
					}
					if what = "ROOT" + strings.TrimPrefix(path, root); strings.Contains(path, "#") || strings.Contains(path, ",S=") {
						what = "file"
					}
				}
				got = append(got, strings.TrimSpace(m[1]+" "+what))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("calls\n%q, want\n%q", got, want)
			}
		})
	}
}

// nextMkdir names the directory that is made next, if the trace does not.
func nextMkdir(got []string) string {
	return []string{"box", "cur", "tmp", "new", "?"}[min(len(got), 4)]
}

// joined puts the two halves of a call that another thread interrupted together.
func joined(trace string) []string {
	var lines []string
	halves := map[string]string{}
	for line := range strings.SplitSeq(trace, "\n") {
		pid, _, _ := strings.Cut(line, " ")
		if half, ok := strings.CutSuffix(line, " <unfinished ...>"); ok {
			halves[pid] = half
			continue
		}
		if _, rest, ok := strings.Cut(line, " resumed>"); ok {
			line = halves[pid] + rest
		}
		lines = append(lines, line)
	}
	return lines
}
