package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// folders is where mail goes within a mailbox.
func (c *config) folders() delivery.Folders {
	f := delivery.Folders{
		Detail: c.Mailbox.DetailFolder, Separator: c.Mailbox.FolderSeparator, Create: c.Mailbox.CreateFolders,
	}
	for _, r := range c.Filing {
		f.Rules = append(f.Rules, delivery.FilingRule(r))
	}
	return f
}

// quota is how much a mailbox may hold. It is kept even where the configuration
// limits nobody: user records have limits of their own, and the accounts in
// maildirsize may be somebody else's.
func (c *config) quota(log *slog.Logger) (*delivery.QuotaPolicy, error) {
	q := &delivery.QuotaPolicy{
		Octets: int64(c.Mailbox.Quota), Messages: int64(c.Mailbox.QuotaMessages), Grace: c.Mailbox.QuotaGrace,
		Ignore: c.Mailbox.QuotaIgnore, Patience: time.Duration(c.Mailbox.OverQuotaAfter), Thresholds: c.Mailbox.QuotaWarn,
		Warn: func(w delivery.QuotaWarning) {
			log.Warn("mailbox is filling up", "mailbox", w.User.Name, "to", w.Address, "percent", w.Percent,
				"octets", w.Usage.Octets, "octets_limit", w.Limit.Octets, "messages", w.Usage.Messages, "messages_limit", w.Limit.Messages)
		},
	}
	var err error
	if q.Notices, err = c.quotaNotices(); err != nil {
		return nil, err
	}
	if q.Commands, err = c.runner(); err != nil {
		return nil, err
	}
	if sameSettings(c.formerCommands, q.Commands) {
		q.Commands = c.formerCommands
	}
	if err := q.Over.UnmarshalText([]byte(c.Mailbox.OverQuota)); err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("mailbox.over_quota"), "mailbox.over_quota", err.Error(), `write "temporary"`)}
	}
	return q, nil
}

// logStale writes a line for each tmp/ from which files were removed.
func logStale(log *slog.Logger) func(maildir.Stale) {
	return func(s maildir.Stale) {
		if s.Err != nil {
			log.Warn("stale files cannot be removed", "dir", s.Dir, "removed", s.Removed, "error", s.Err.Error())
			return
		}
		log.Info("stale files removed", "dir", s.Dir, "removed", s.Removed)
	}
}

// validateMailbox checks what a message may meet on its way into a mailbox.
func (c *config) validateMailbox() {
	f := c.folders()
	rules := f.Rules
	f.Rules = nil
	if err := f.Check(); err != nil {
		c.doc.report("mailbox.folder_separator", err.Error(), `write "." or "/"`)
		f.Separator = ""
	}
	for i, r := range rules {
		f.Rules = []delivery.FilingRule{r}
		if f.Check() == nil {
			continue
		}
		// One of the two is wrong; a rule with the other one mended says which.
		key := func(name string) string { return fmt.Sprintf("filing[%d].%s", i, name) }
		f.Rules[0].Folder = "INBOX"
		if f.Check() != nil {
			c.doc.report(key("field"), quoted(r.Field)+" is no name of a header field", `write a name such as "X-Spam-Flag"`)
		} else {
			c.doc.report(key("folder"), quoted(r.Folder)+" is no name of a folder", `write a name such as "Junk", or "INBOX"`)
		}
	}
	if m := c.Mailbox.FileMode; m&0o711 != 0o600 {
		c.doc.report("mailbox.file_mode", quoted(m.String())+" is no mode for messages", `write "0600", or "0640" where the group reads mail`)
	}
	if m := c.Mailbox.DirectoryMode; m&0o700 != 0o700 {
		c.doc.report("mailbox.directory_mode", quoted(m.String())+" keeps the owner out", `write "0700", or "0750" where the group reads mail`)
	}
	fields, err := delivery.ParseTraceFields(c.Delivery.Headers)
	if err != nil {
		c.doc.report("delivery.headers", err.Error(), `write names such as ["Return-Path", "Delivered-To", "Received"]`)
	} else if c.Delivery.LoopCheck && fields&delivery.TraceDeliveredTo == 0 {
		c.doc.report("delivery.headers", "no Delivered-To, which delivery.loop_check needs", `add "Delivered-To", or set loop_check = false`)
	}
	if c.Mailbox.QuotaMessages < 0 {
		c.doc.report("mailbox.quota_messages", fmt.Sprintf("%d is less than nothing", c.Mailbox.QuotaMessages), "write 0 for no limit")
	}
	for _, p := range c.Mailbox.QuotaWarn {
		if p < 1 || p > 100 {
			c.doc.report("mailbox.quota_warn", fmt.Sprintf("%d is no percentage", p), "write numbers from 1 to 100, such as [80, 95]")
		}
	}
	for _, k := range []struct {
		key  string
		have duration
	}{{"mailbox.over_quota_after", c.Mailbox.OverQuotaAfter}, {"delivery.redelivery_age", c.Delivery.RedeliveryAge}} {
		if v := time.Duration(k.have); v < time.Minute || v > 90*24*time.Hour {
			c.doc.report(k.key, fmt.Sprintf("%s is out of range", v), `write a duration from "1m" to "2160h"`)
		}
	}
}

// openRedelivery opens the memory of deliveries, once for the life of the daemon;
// nil if the configuration wants none.
func (c *config) openRedelivery(log *slog.Logger) (*delivery.Redelivery, error) {
	if !c.Delivery.Redelivery {
		return nil, nil
	}
	r, err := delivery.OpenRedelivery(c.StateDirectory, delivery.RedeliveryOptions{
		Age: time.Duration(c.Delivery.RedeliveryAge), Weak: c.Mailbox.Durability != durabilityFull, Log: log,
	})
	if err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("state_directory"), "state_directory", "the memory of deliveries: "+err.Error(),
			"let this user write to "+c.StateDirectory+", give each lmtpd a directory of its own, or set redelivery = false")}
	}
	return r, nil
}
