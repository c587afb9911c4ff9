package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
	"github.com/lmtpd/lmtpd/userdb"
)

// programs are the command lines of the configuration, by their keys.
func (c *config) programs() map[string][]string {
	all := make(map[string][]string)
	for i, w := range c.QuotaWarning {
		if len(w.Command) > 0 {
			all[fmt.Sprintf("quota_warning[%d].command", i)] = w.Command
		}
	}
	for i, t := range c.Transport {
		if t.Type == transportPipe && len(t.Command) > 0 {
			all[fmt.Sprintf("transport[%d].command", i)] = t.Command
		}
	}
	return all
}

// validateCommands checks programs, what runs them, and those who are told of full
// mailboxes.
func (c *config) validateCommands() {
	for i, w := range c.QuotaWarning {
		key := func(name string) string { return fmt.Sprintf("quota_warning[%d].%s", i, name) }
		switch {
		case w.Percent >= 1 && w.Percent <= 100:
		case c.doc.has(key("percent")):
			c.doc.report(key("percent"), fmt.Sprintf("%d is no percentage", w.Percent), "write a number from 1 to 100, such as 90")
		default:
			c.doc.report(key("percent"), "is not set", "write percent = 90")
		}
		if w.Mail == "" && len(w.Command) == 0 {
			c.doc.report(key("mail"), "neither mail nor command is set", `write mail = "/etc/lmtpd/over-quota.txt", or a command`)
		}
		if w.Mail != "" {
			c.checkAbsolute(key("mail"), w.Mail)
		}
		if len(w.Command) == 0 {
			continue
		}
		if err := command.Check(w.Command, delivery.NoticeValues); err != nil {
			c.doc.report(key("command"), err.Error(), `write a list of words, the first a path, such as ["/usr/local/bin/over-quota", "{address}", "{percent}"]`)
		}
	}
	if v := time.Duration(c.Commands.TimeLimit); v < time.Second || v > time.Hour {
		c.doc.report("commands.time_limit", fmt.Sprintf("%s is out of range", v), `write a duration from "1s" to "1h"`)
	}
	if c.Commands.Parallel < 1 {
		c.doc.report("commands.parallel", fmt.Sprintf("%d is too small", c.Commands.Parallel), "write 1 or more")
	}
}

// maxNoticeFile bounds how much of the text of a mail is read, in octets.
const maxNoticeFile = 1 << 20

// quotaNotices reads the texts of the mails.
func (c *config) quotaNotices() (all []delivery.QuotaNotice, err error) {
	for i, w := range c.QuotaWarning {
		n := delivery.QuotaNotice{At: w.Percent, Command: w.Command}
		if w.Mail != "" {
			text, err := readSmallFile(w.Mail, maxNoticeFile)
			if err == nil {
				n.Mail, err = delivery.ParseNoticeText(text)
			}
			if err != nil {
				key := fmt.Sprintf("quota_warning[%d].mail", i)
				return nil, configErrors{c.doc.fault(c.doc.line(key), key, w.Mail+": "+plainError(err),
					`write header fields such as "Subject: Your mailbox is {percent}% full", an empty line and the text into it`)}
			}
		}
		all = append(all, n)
	}
	return all, nil
}

// uidNobody is the kernel's overflow uid.
const uidNobody = 65534

// runner is what runs programs; nil if there are none.
func (c *config) runner() (*command.Runner, error) {
	if len(c.programs()) == 0 {
		return nil, nil
	}
	r := &command.Runner{Parallel: c.Commands.Parallel, Timeout: time.Duration(c.Commands.TimeLimit)}
	if c.Commands.User == "" {
		return r, nil
	}
	if id, err := lookupID("user", c.Commands.User); err == nil && id == uidNobody {
		return nil, configErrors{c.doc.fault(c.doc.line("commands.user"), "commands.user",
			quoted(c.Commands.User)+" is the account of files that belong to nobody known, as on NFS and in containers, and of other programs",
			`make one that owns nothing, such as user = "lmtpd-commands" (useradd --system lmtpd-commands)`)}
	}
	accounts := &userdb.System{MinUID: 1}
	u, err := accounts.Lookup(context.Background(), userdb.Address{Local: c.Commands.User})
	if err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("commands.user"), "commands.user", "cannot be used: "+err.Error(),
			`name an account that exists and owns nothing, such as "lmtpd-commands"`)}
	}
	a := command.Account(*u.Owner)
	r.Account = &a
	return r, nil
}

// checkCommands says why this process could run no program.
func (c *config) checkCommands(uid int) error {
	r, err := c.runner()
	if err != nil || r == nil {
		return err
	}
	problem := ""
	switch {
	case r.Account == nil && uid == 0:
		problem = "is empty, and programs are never run as root"
	case r.Account != nil && uid != 0 && uid != int(r.Account.UID):
		problem = fmt.Sprintf("uid %d cannot run programs as %s", uid, c.Commands.User)
	default:
		return nil
	}
	remedy := `name an account that owns nothing, such as user = "lmtpd-commands"`
	if uid != 0 {
		remedy = "leave it out: they are run as that account itself"
	}
	return configErrors{c.doc.fault(c.doc.line("commands.user"), "commands.user", problem, remedy)}
}

// readSmallFile returns the content of a plain file of up to most octets.
func readSmallFile(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a plain file")
	case info.Size() > most:
		return nil, fmt.Errorf("has more than %d octets", most)
	}
	return os.ReadFile(path)
}
