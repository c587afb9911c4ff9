package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/userdb"
)

// validate checks what the type of a value alone cannot: ranges, and keys that depend
// on each other. It reads nothing but the configuration; see checkEnvironment.
func (c *config) validate() {
	d := c.doc
	if c.Hostname != "" {
		d.reportValue("hostname", checkHostname(c.Hostname))
	}
	c.checkAbsolute("state_directory", c.StateDirectory)
	d.reportValue("address.delimiter", checkDelimiter(c.Address.Delimiter))
	d.reportValue("mailbox.path", checkMailboxPath(c.Mailbox.Path))
	c.validateListen()
	c.validateUserdb()
	c.validateMailbox()
	c.validateCommands()
	c.validateTransports()
	c.validateLimits()
	c.validateOperator()
}

func (c *config) validateListen() {
	names, addresses := map[string]int{}, map[socketAddress]int{}
	for i, l := range c.Listen {
		key := func(name string) string { return fmt.Sprintf("listen[%d].%s", i, name) }
		if l.Address.Network == "" && !c.doc.has(key("address")) && !c.doc.has(key("name")) {
			c.doc.report(key("address"), "neither address nor name is set", `write address = "unix:/run/lmtpd/lmtp.sock", or the name of a socket that systemd passes`)
		}
		c.doc.reportValue(key("name"), checkSocketName(l.Name))
		if j, twice := names[l.Name]; twice {
			c.doc.report(key("name"), fmt.Sprintf("the entry in line %d is called %s too", c.doc.line(fmt.Sprintf("listen[%d]", j)), quoted(l.Name)), "give each [[listen]] a name of its own")
		}
		names[l.Name] = i
		if j, twice := addresses[l.Address]; twice && l.Address.Network != "" {
			c.doc.report(key("address"), fmt.Sprintf("the entry in line %d has this address too", c.doc.line(fmt.Sprintf("listen[%d]", j))), "remove one of the two")
		}
		addresses[l.Address] = i
		if l.Protocol == protoLMTP && l.Address.port() == 25 {
			c.doc.report(key("address"), "LMTP on TCP port 25", "use another port, such as 24: RFC 2033 section 5 keeps port 25 for SMTP")
		}
		for _, name := range []string{"mode", "owner", "group"} {
			if l.Address.Network == "tcp" && c.doc.has(key(name)) {
				c.doc.report(key(name), "a TCP socket has no "+name, "remove it, or use a Unix socket")
			}
		}
	}
}

func (c *config) validateUserdb() {
	for i, u := range c.Userdb {
		key := func(name string) string { return fmt.Sprintf("userdb[%d].%s", i, name) }
		switch u.Type {
		case userdbPasswdFile:
			if u.Path != "" {
				c.checkAbsolute(key("path"), u.Path)
			} else if c.doc.has(key("path")) {
				c.doc.report(key("path"), "is empty", `write path = "/etc/lmtpd/users"`)
			} else {
				c.doc.report(key("path"), "a passwd-file needs a path", `write path = "/etc/lmtpd/users"`)
			}
		case userdbAny:
			if len(u.Domains) == 0 {
				c.doc.report(key("domains"), "type any would take mail for every address of every domain", `write domains = ["example.org"]`)
			}
			if strings.HasPrefix(c.Mailbox.Path, "~") {
				c.doc.report(key("type"), "users of type any have no home, which mailbox.path = "+quoted(c.Mailbox.Path)+" needs", `write an absolute mailbox.path such as "/var/mail/vhosts/%d/%n"`)
			}
			fallthrough
		case userdbSystem:
			if c.doc.has(key("path")) {
				c.doc.report(key("path"), "is for type passwd-file only", `remove it, or write type = "passwd-file"`)
			}
		default:
			if !c.doc.has(key("type")) {
				c.doc.report(key("type"), "a [[userdb]] needs a type", `write type = "passwd-file" or type = "system"`)
			}
		}
		for _, name := range []string{"known_user", "trust_nss"} {
			if (u.Type == userdbPasswdFile || u.Type == userdbAny) && c.doc.has(key(name)) {
				c.doc.report(key(name), "is for type system only", "remove it")
			}
		}
		if u.MinimumUID == 0 {
			c.doc.report(key("minimum_uid"), "0 is root, who never gets mail written as himself", "write minimum_uid = 1000")
		}
		for _, domain := range u.Domains {
			c.doc.reportValue(key("domains"), checkDomain(domain))
		}
	}
}

func (c *config) validateLimits() {
	atLeast := func(key string, have, least int) {
		if have < least {
			c.doc.report(key, fmt.Sprintf("%d is too small", have), fmt.Sprintf("write %d or more", least))
		}
	}
	aTime := func(key string, have duration) {
		if v := time.Duration(have); v < time.Second || v > 24*time.Hour {
			c.doc.report(key, fmt.Sprintf("%s is out of range", v), `write a duration from "1s" to "24h"`)
		}
	}
	l := c.Limits
	atLeast("limits.recipients", l.Recipients, 1)
	atLeast("limits.sessions", l.Sessions, 1)
	atLeast("limits.errors", l.Errors, 1)
	atLeast("limits.parallel_deliveries", l.ParallelDeliveries, 1)
	aTime("limits.command_timeout", l.CommandTimeout)
	aTime("limits.data_timeout", l.DataTimeout)
	if l.IdleExit != 0 {
		aTime("limits.idle_exit", l.IdleExit)
	}
	if l.MemoryBody > 1<<30 {
		c.doc.report("limits.memory_body", l.MemoryBody.String()+" for each session is too large", `write "1 GiB" or less, such as "256 KiB"`)
	}
	atLeast("delivery.max_received", c.Delivery.MaxReceived, 1)
	aTime("delivery.deliver_timeout", c.Delivery.DeliverTimeout)
}

// validateOperator keeps figures and logs of mail on this machine.
func (c *config) validateOperator() {
	if a := c.Metrics.Address; a.Network == "tcp" {
		host, _, _ := net.SplitHostPort(a.Address)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			c.doc.report("metrics.address", a.String()+" can be reached from other machines", `use a loopback address such as "tcp:127.0.0.1:9825", or a Unix socket, and a proxy with access control before it`)
		}
		for _, name := range []string{"mode", "group"} {
			if c.doc.has("metrics." + name) {
				c.doc.report("metrics."+name, "a TCP socket has no "+name, "remove it, or use a Unix socket")
			}
		}
	}
	if a := c.Writer.Socket; a.Network == "tcp" {
		c.doc.report("writer.socket", a.String()+" is no Unix socket", `write a path such as "/run/lmtpd/writer.sock", or "" for one process`)
	}
	if c.Writer.FrontUser == "" {
		c.doc.report("writer.front_user", "is empty", `write the account that "lmtpd serve" runs as, such as "lmtpd"`)
	}
	if c.Status.Socket.Network == "tcp" {
		c.doc.report("status.socket", c.Status.Socket.String()+" is no Unix socket", `write a path such as "/run/lmtpd/status.sock", or "" for none`)
	}
}

func (c *config) checkAbsolute(key, path string) {
	switch {
	case strings.ContainsFunc(path, isControl):
		c.doc.report(key, quoted(path)+" has a control character", "remove it")
	case !filepath.IsAbs(path):
		c.doc.report(key, quoted(path)+" is not an absolute path", "write it from the root, beginning with /")
	}
}

// checkHostname takes the names that can stand in a Received field and a file name.
func checkHostname(name string) error {
	ok := len(name) <= 253
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && strings.Trim(label, "-") == label &&
			!strings.ContainsFunc(label, func(r rune) bool {
				return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
			})
	}
	if !ok {
		return &valueError{quoted(name) + " is not a host name", `write a name such as "mx.example.org", or "" for the name of this machine`}
	}
	return nil
}

// checkDelimiter refuses what cannot be told from the rest of an address.
func checkDelimiter(delimiter string) error {
	var bad *userdb.DelimiterError
	if !errors.As(userdb.Rules{Delimiter: delimiter}.Check(), &bad) {
		return nil
	}
	return &valueError{quoted(bad.Sign) + " cannot delimit the detail of an address", `write punctuation such as "+" or "+-", or "" for no detail`}
}

// checkMailboxPath says what is wrong with a template for mailbox.path.
func checkMailboxPath(path string) error {
	var bad *delivery.LocationError
	if _, err := delivery.ParseLocation(path); !errors.As(err, &bad) {
		return nil
	}
	return &valueError{quoted(path) + " " + bad.Problem, bad.Remedy}
}

// checkDomain takes a domain as it follows the @; "" stands for addresses without one.
func checkDomain(domain string) error {
	for label := range strings.SplitSeq(domain, ".") {
		bad := strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("@/\\\"<>()[],;:", r) })
		if domain != "" && (label == "" || len(label) > 63 || bad) || len(domain) > 253 {
			return &valueError{quoted(domain) + " is not a domain", `write what follows the @, such as "example.org"; "" is for addresses without a domain`}
		}
	}
	return nil
}

// checkSocketName takes what systemd takes as FileDescriptorName=.
func checkSocketName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f || r == ':' }) {
		return &valueError{quoted(name) + " is not a name", "write up to 255 ASCII characters without a colon"}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
