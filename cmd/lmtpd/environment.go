package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// checkEnvironment looks for what the configuration needs of this machine and does not
// find, seen by the user who runs it. inherited are the names of the sockets that
// systemd has passed. It changes nothing and connects to nobody, so that it can be run
// beside a live daemon; what it cannot be sure of from here is a warning.
//
// The content of user files is not looked at: that is for their databases.
func (c *config) checkEnvironment(inherited []string) configErrors {
	var found configErrors
	report := func(warning bool, key string, err error) {
		var v *valueError
		if !errors.As(err, &v) {
			return
		}
		f := c.doc.fault(c.doc.line(key), key, v.problem, v.remedy)
		f.Warning = warning
		found = append(found, f)
	}
	if len(c.Userdb) == 0 {
		report(false, "userdb", &valueError{"there is no user database, so nobody gets mail", `add a [[userdb]] with type = "system" or type = "passwd-file"`})
	}
	if len(c.Listen) == 0 && len(inherited) == 0 {
		report(true, "listen", &valueError{"there is no [[listen]]", "lmtpd starts only with sockets from systemd (lmtpd.socket)"})
	}
	for i, l := range c.Listen {
		if slices.Contains(inherited, l.Name) {
			continue
		}
		key := func(name string) string { return fmt.Sprintf("listen[%d].%s", i, name) }
		if l.Address.Network == "" {
			report(true, key("name"), &valueError{"there is no address", "lmtpd starts only if systemd passes a socket with FileDescriptorName=" + l.Name})
			continue
		}
		if l.Address.Network == "unix" {
			report(false, key("address"), checkSocketPath(l.Address.Address))
		}
		_, err := lookupID("user", l.Owner)
		report(false, key("owner"), err)
		_, err = lookupID("group", l.Group)
		report(false, key("group"), err)
	}
	if at := c.Writer.Socket.Address; at != "" {
		_, err := lookupID("user", c.Writer.FrontUser)
		report(false, "writer.front_user", err)
		report(true, "writer.socket", checkWriterSocket(at))
	}
	c.checkTransports(report)
	for i, w := range c.QuotaWarning {
		if len(w.Command) > 0 {
			report(true, fmt.Sprintf("quota_warning[%d].command", i), checkProgram(w.Command[0]))
		}
	}
	report(false, "state_directory", checkWritable(c.StateDirectory, "spooled messages"))
	if strings.HasPrefix(c.Mailbox.Path, "/") && !strings.Contains(strings.ReplaceAll(c.Mailbox.Path, "%%", ""), "%") {
		report(true, "mailbox.path", &valueError{"is one mailbox for all users", `use "~/Maildir", or a path with %u, or %n and %d`})
	}
	// RFC 5321 sections 4.5.3.1.7 and 4.5.3.1.8.
	if c.Limits.MessageSize != 0 && c.Limits.MessageSize < 64<<10 {
		report(true, "limits.message_size", &valueError{c.Limits.MessageSize.String() + " is less than any SMTP server must take", `write "64 KiB" or more`})
	}
	if c.Limits.Recipients < 100 {
		report(true, "limits.recipients", &valueError{fmt.Sprintf("%d is less than any SMTP server must take", c.Limits.Recipients), "write 100 or more"})
	}
	found.sort()
	return found
}

// checkWriterSocket says why the front would not reach the writer at path.
func checkWriterSocket(path string) error {
	const remedy = "start lmtpd-writer.socket, or \"lmtpd writer\""
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return &valueError{"nobody would write the mail: " + path + ": " + plainError(err), remedy}
	case info.Mode().Type() != fs.ModeSocket:
		return &valueError{path + " is not a socket", "remove it and " + remedy}
	}
	return nil
}

// checkSocketPath says why a socket could not be made at path. A socket that is there
// already may be the running daemon's own, and is fine.
func checkSocketPath(path string) error {
	old, err := os.Lstat(path)
	switch {
	case err == nil && old.Mode().Type() != fs.ModeSocket:
		return notASocket(path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return unixProblem(path, err)
	}
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil {
		return unixProblem(path, err)
	} else if !info.IsDir() {
		return unixProblem(path, syscall.ENOTDIR)
	}
	if err := syscall.Access(dir, accessWrite|accessEnter); err != nil {
		return unixProblem(path, err)
	}
	return nil
}

// W_OK and X_OK of access(2).
const accessWrite, accessEnter = 2, 1

// checkWritable says why dir could not take files; what names them.
func checkWritable(dir, what string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &valueError{"the directory " + dir + " for " + what + " does not exist", "create it for the user of lmtpd (install -d -m 0700 -o USER " + dir + "; with systemd, StateDirectory=lmtpd)"}
	case err != nil:
		return &valueError{"the directory " + dir + " for " + what + " cannot be entered: " + plainError(err), "let uid " + fmt.Sprint(os.Getuid()) + " enter the directories above it"}
	case !info.IsDir():
		return &valueError{dir + " is not a directory", "name a directory for " + what}
	}
	if err := syscall.Access(dir, accessWrite|accessEnter); err != nil {
		return &valueError{fmt.Sprintf("the directory %s for %s is not writable for uid %d: %v", dir, what, os.Getuid(), err), "make it a directory of the user of lmtpd, with mode 0700"}
	}
	return nil
}
