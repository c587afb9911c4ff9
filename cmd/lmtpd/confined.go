package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lmtpd/lmtpd/confine"
)

// need is a directory that a configuration needs, by the key that says so.
type need struct {
	key  string
	path confine.Path
}

const readRun = confine.Read | confine.Execute

// systemPaths are what a process needs of the machine, above all to look accounts up:
// getent(1) with its libraries, and what the name service keeps and listens on. There
// is no home among them.
var systemPaths = []confine.Path{
	{Name: "/usr", Access: readRun}, {Name: "/bin", Access: readRun}, {Name: "/sbin", Access: readRun},
	{Name: "/lib", Access: readRun}, {Name: "/lib32", Access: readRun}, {Name: "/lib64", Access: readRun},
	{Name: "/nix", Access: readRun}, {Name: "/gnu", Access: readRun},
	{Name: "/etc", Access: confine.Read}, {Name: "/run", Access: confine.Read},
	{Name: "/var/run", Access: confine.Read}, {Name: "/var/db", Access: confine.Read},
	{Name: "/var/lib/sss", Access: confine.Read}, {Name: "/var/lib/extrausers", Access: confine.Read},
	{Name: "/proc", Access: confine.Read}, {Name: "/sys", Access: confine.Read},
	{Name: "/dev/null", Access: confine.Read | confine.Write}, {Name: "/dev/urandom", Access: confine.Read},
}

// fileNeeds are the directories of the configuration and of the user files: a file
// that is exchanged is another file, and stays in its directory.
func (c *config) fileNeeds() (all []need) {
	add := func(key, file string) {
		all = append(all, need{key, confine.Path{Name: filepath.Dir(file), Access: confine.Read}})
		if real, err := filepath.EvalSymlinks(file); err == nil && filepath.Dir(real) != filepath.Dir(file) {
			all = append(all, need{key, confine.Path{Name: filepath.Dir(real), Access: confine.Read}})
		}
	}
	add("", c.doc.file)
	for i, u := range c.Userdb {
		if u.Path != "" {
			add(fmt.Sprintf("userdb[%d].path", i), u.Path)
		}
	}
	for i, w := range c.QuotaWarning {
		if w.Mail != "" {
			add(fmt.Sprintf("quota_warning[%d].mail", i), w.Mail)
		}
	}
	for i, t := range c.Transport {
		if t.CAFile != "" {
			add(fmt.Sprintf("transport[%d].ca_file", i), t.CAFile)
		}
	}
	return all
}

// frontNeeds are all that the front touches by itself.
func (c *config) frontNeeds() []need {
	all := append(c.fileNeeds(), need{"state_directory", confine.Path{
		Name: c.StateDirectory, Access: confine.Read | confine.Write | confine.Dirs | confine.Remove | confine.Sockets,
	}})
	for key, argv := range c.programs() {
		all = append(all, need{key, confine.Path{Name: filepath.Dir(argv[0]), Access: readRun}})
	}
	for i, t := range c.Transport {
		for _, p := range t.WritePaths {
			all = append(all, need{fmt.Sprintf("transport[%d].write_paths", i), confine.Path{
				Name: p, Access: confine.Read | confine.Write | confine.Dirs | confine.Remove | confine.Sockets,
			}})
		}
		if strings.HasPrefix(t.Path, "/") {
			all = append(all, need{fmt.Sprintf("transport[%d].path", i), confine.Path{Name: filepath.Dir(t.Path), Access: confine.Read | confine.Write}})
		}
	}
	socket := func(key string, a socketAddress) {
		if a.Network == "unix" {
			all = append(all, need{key, confine.Path{Name: filepath.Dir(a.Address), Access: confine.Read | confine.Sockets | confine.Remove}})
		}
	}
	for i, l := range c.Listen {
		socket(fmt.Sprintf("listen[%d].address", i), l.Address)
	}
	socket("metrics.address", c.Metrics.Address.socketAddress)
	socket("status.socket", c.Status.Socket.socketAddress)
	return all
}

// writerNeeds: no programs but the system's, and no links, FIFOs or devices. Which directories are homes only the user
// databases know, and the kernel checks each access as the owner of the mail.
func (c *config) writerNeeds() []need {
	all := append(c.fileNeeds(), need{"", confine.Path{
		Name: "/", Access: confine.Read | confine.Write | confine.Dirs | confine.Remove,
	}})
	if a := c.Writer.Socket; a.Network == "unix" {
		all = append(all, need{"writer.socket", confine.Path{Name: filepath.Dir(a.Address), Access: confine.Sockets}})
	}
	return all
}

// confineFront takes from the front what the writer has instead: it keeps only the
// right to bind the ports that a reload may add.
func (d *daemon) confineFront(c *config) {
	if c.Writer.Socket.Network != "" && !d.confined {
		d.confine(c.frontNeeds(), confine.NetBindService)
	}
}

func (d *daemon) confineWriter(c *config) {
	d.confine(c.writerNeeds(), confine.SetUID, confine.SetGID)
}

func (d *daemon) confine(needs []need, caps ...confine.Capability) {
	plan := confine.Plan{Capabilities: caps, Paths: slices.Clone(systemPaths)}
	for _, n := range needs {
		plan.Paths = append(plan.Paths, n.path)
	}
	r := plan.Apply()
	d.confined = true
	for _, err := range r.Missed {
		d.log.Warn("the process is confined less than it could be", "error", err)
	}
	if r.Landlock > 0 {
		d.allowed = plan.Paths
	}
	d.log.Info("confined", "capabilities", fmt.Sprint(r.Capabilities), "landlock", r.Landlock)
}

// stillAllowed says what of a new configuration is out of reach, because the process
// has shut itself in with what the first one needed.
func (d *daemon) stillAllowed(c *config) error {
	const remedy = "restart it: systemctl restart lmtpd"
	var faults configErrors
	if d.confined && c.Writer.Socket.Network == "" {
		faults = append(faults, c.doc.fault(c.doc.line("writer.socket"), "writer.socket",
			"is gone, and this process has given up what it would need to write mail itself", remedy))
	}
	for _, n := range c.frontNeeds() {
		if d.allowed == nil || slices.ContainsFunc(d.allowed, func(a confine.Path) bool { return covers(a, n.path) }) {
			continue
		}
		faults = append(faults, c.doc.fault(c.doc.line(n.key), n.key,
			n.path.Name+" was not needed when this process started and gave up access to everything else", remedy))
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// covers reports whether all of b lies in a.
func covers(a, b confine.Path) bool {
	within := a.Name == b.Name || a.Name == "/" || strings.HasPrefix(b.Name, a.Name+"/")
	return within && b.Access&^a.Access == 0
}
