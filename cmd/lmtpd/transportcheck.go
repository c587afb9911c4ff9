package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/delivery/pipe"
	"github.com/lmtpd/lmtpd/userdb"
)

// fillTransports gives [[transport]] tables the defaults of their types.
func (c *config) fillTransports() {
	for i := range c.Transport {
		t := &c.Transport[i]
		for j, d := range t.Domains {
			t.Domains[j] = strings.ToLower(d)
		}
		if t.Name == "" {
			t.Name = string(t.Type)
		}
		if t.Timeout == 0 {
			t.Timeout = duration(5 * time.Minute)
		}
		if t.Parallel == 0 && !c.doc.has(fmt.Sprintf("transport[%d].parallel", i)) {
			t.Parallel = 20
		}
		if t.Type != transportRelay {
			continue
		}
		if t.Protocol == "" {
			t.Protocol = protoLMTP
		}
		if t.Port == 0 && !c.doc.has(fmt.Sprintf("transport[%d].port", i)) {
			t.Port = map[listenProto]int{protoLMTP: 24, protoSMTP: 25}[t.Protocol]
		}
		if t.TLS == "" {
			t.TLS = tlsOff
		}
		if t.IdleTimeout == 0 {
			t.IdleTimeout = duration(30 * time.Second)
		}
	}
}

// transportKeys are those that only some types have.
var transportKeys = map[string][]transportType{
	"protocol": {transportRelay}, "hosts": {transportRelay}, "port": {transportRelay}, "tls": {transportRelay},
	"ca_file": {transportRelay}, "idle_timeout": {transportRelay},
	"command": {transportPipe}, "write_paths": {transportPipe},
	"parallel": {transportRelay, transportPipe}, "timeout": {transportRelay, transportPipe},
	"path": {transportDebug},
}

var transportName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

func (c *config) validateTransports() {
	names, domains := map[string]int{}, map[string]int{}
	for i, t := range c.Transport {
		key := func(name string) string { return fmt.Sprintf("transport[%d].%s", i, name) }
		if t.Type == "" {
			if !c.doc.has(key("type")) {
				c.doc.report(key("type"), "a [[transport]] needs a type", `write type = "relay", "pipe", "discard" or "debug"`)
			}
			continue
		}
		for _, name := range []string{"protocol", "hosts", "port", "tls", "ca_file", "idle_timeout", "command", "write_paths", "parallel", "timeout", "path"} {
			if c.doc.has(key(name)) && !slices.Contains(transportKeys[name], t.Type) {
				c.doc.report(key(name), "is not for type "+string(t.Type), "remove it")
			}
		}
		switch {
		case t.Name == "maildir" || t.Name == "none":
			c.doc.report(key("name"), quoted(t.Name)+" means something else already", "choose another name")
		case !transportName.MatchString(t.Name):
			c.doc.report(key("name"), quoted(t.Name)+" is not a name", "write up to 32 small letters, digits, - and _")
		}
		if j, twice := names[t.Name]; twice {
			c.doc.report(key("name"), fmt.Sprintf("the entry in line %d is called %s too", c.doc.line(fmt.Sprintf("transport[%d]", j)), quoted(t.Name)), "give each [[transport]] a name of its own")
		}
		names[t.Name] = i
		for _, d := range t.Domains {
			c.doc.reportValue(key("domains"), checkDomain(d))
			if j, twice := domains[d]; twice {
				c.doc.report(key("domains"), fmt.Sprintf("%s is in the entry in line %d already", quoted(d), c.doc.line(fmt.Sprintf("transport[%d]", j))), "remove one of the two")
			}
			domains[d] = i
		}
		if v := time.Duration(t.Timeout); v < time.Second || v > 9*time.Minute {
			c.doc.report(key("timeout"), fmt.Sprintf("%s is out of range", v), `write a duration from "1s" to "9m": Postfix waits ten minutes`)
		}
		if t.Parallel < 1 || t.Parallel > 1000 {
			c.doc.report(key("parallel"), fmt.Sprintf("%d is out of range", t.Parallel), "write a number from 1 to 1000")
		}
		switch t.Type {
		case transportRelay:
			c.validateRelay(&t, key)
		case transportPipe:
			if err := command.Check(t.Command, pipe.Values); err != nil {
				c.doc.report(key("command"), err.Error(), `write a list of words, the first a path, such as ["/usr/local/bin/tickets", "--from={sender}", "{detail}"]`)
			}
			for _, p := range t.WritePaths {
				c.checkAbsolute(key("write_paths"), p)
			}
		case transportDebug:
			if t.Path != "" && t.Path != "-" {
				c.checkAbsolute(key("path"), t.Path)
			}
		}
	}
	if name := c.Delivery.Transport; name != "maildir" {
		if _, ok := names[name]; !ok {
			c.doc.report("delivery.transport", quoted(name)+" is the name of no [[transport]]", `write "maildir", or the name of a [[transport]]`)
		}
	}
}

func (c *config) validateRelay(t *transportConfig, key func(string) string) {
	if t.Port < 1 || t.Port > 65535 {
		c.doc.report(key("port"), fmt.Sprintf("%d is not a port", t.Port), "write a number from 1 to 65535, such as 24")
	}
	if v := time.Duration(t.IdleTimeout); v < time.Second || v > 5*time.Minute {
		c.doc.report(key("idle_timeout"), fmt.Sprintf("%s is out of range", v), `write a duration from "1s" to "5m"`)
	}
	if t.CAFile != "" {
		c.checkAbsolute(key("ca_file"), t.CAFile)
	}
	if t.CAFile != "" && t.TLS != tlsRequired && t.TLS != tlsImplicit {
		c.doc.report(key("ca_file"), "no certificate is checked with tls = "+quoted(string(t.TLS)), `write tls = "required", or remove it`)
	}
	for _, text := range t.Hosts {
		a, err := parseSocketAddress(text)
		switch {
		case err != nil:
			c.doc.reportValue(key("hosts"), err)
		case a.Network == "tcp" && a.port() == 0:
			c.doc.report(key("hosts"), quoted(text)+" has no port", `write a port, such as "tcp:10.0.0.1:24"`)
		case a.Network == "unix" && (t.TLS == tlsRequired || t.TLS == tlsImplicit):
			c.doc.report(key("hosts"), quoted(text)+" is a Unix socket, which TLS cannot secure and need not", `use a [[transport]] of its own for it, with tls = "off"`)
		case slices.ContainsFunc(c.Listen, func(l listenConfig) bool { return l.Address == a }):
			c.doc.report(key("hosts"), quoted(text)+" is where lmtpd listens itself", "name another server")
		}
	}
}

// checkTransports looks for what transports need of this machine, see checkEnvironment.
func (c *config) checkTransports(report func(warning bool, key string, err error)) {
	for i, t := range c.Transport {
		key := func(name string) string { return fmt.Sprintf("transport[%d].%s", i, name) }
		switch {
		case t.Type == transportPipe:
			report(false, key("command"), checkProgram(t.Command[0]))
			for _, p := range t.WritePaths {
				if _, err := os.Stat(p); err != nil {
					report(true, key("write_paths"), &valueError{p + ": " + plainError(err), "make it, or remove it here"})
				}
			}
		case t.Type == transportDebug && strings.HasPrefix(t.Path, "/"):
			report(false, key("path"), checkWritable(filepath.Dir(t.Path), "shown messages"))
		}
	}
}

// checkProgram says why a file cannot be executed by anybody.
func checkProgram(path string) error {
	const remedy = "name a program that is there, by its absolute path"
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &valueError{path + " does not exist", remedy}
	case err != nil:
		return &valueError{path + ": " + plainError(err), remedy}
	case !info.Mode().IsRegular():
		return &valueError{path + " is not a file", remedy}
	case info.Mode()&0o111 == 0:
		return &valueError{path + " is not executable", "make it so: chmod 0755 " + path}
	}
	if err := syscall.Access(path, accessEnter); err != nil && os.Geteuid() != 0 {
		return &valueError{fmt.Sprintf("uid %d cannot execute %s: %v", os.Geteuid(), path, err), "give this user the right to"}
	}
	return nil
}

// Bounds of what checkRoutes looks at, and for how long, and of what it says.
const (
	routesChecked  = 100_000
	routesPatience = 10 * time.Second
	routesSaid     = 5
)

// checkRoutes says which user records name a transport that is not configured, or a host
// that is none. Databases that cannot name their users are left out, and login accounts,
// whose records name nothing.
func (c *config) checkRoutes(agent *delivery.Agent) (found configErrors) {
	all, _ := agent.Users.(userdb.Chain)
	users := slices.DeleteFunc(slices.Clone(all), func(e userdb.Entry) bool {
		cache, _ := e.Database.(*userdb.Cache)
		if cache == nil {
			return false
		}
		_, system := cache.Database.(*userdb.System)
		return system
	})
	ctx, cancel := context.WithTimeout(context.Background(), routesPatience)
	defer cancel()
	n := 0
	for a, err := range users.List(ctx) {
		if n++; n > routesChecked || len(found) == routesSaid || ctx.Err() != nil {
			break
		}
		if err != nil {
			continue
		}
		u, err := users.Lookup(ctx, a)
		if err != nil {
			continue
		}
		if err := agent.CheckRoute(u, a); err != nil {
			f := c.doc.fault(c.doc.line("transport"), "transport", err.Error(), "mail for this user waits until there is such a [[transport]], or the record is mended")
			f.Warning = true
			found = append(found, f)
		}
	}
	return found
}
