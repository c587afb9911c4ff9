package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// loadAgent is how the commands that deliver by themselves begin. Errors are
// *exitError.
func loadAgent(path string, logger func(*config) *slog.Logger) (*config, *delivery.Agent, error) {
	c, err := loadConfig(path)
	if err != nil {
		return nil, nil, &exitError{exitConfig, err.Error()}
	}
	agent, err := buildAgent(c, logger(c))
	if err != nil {
		return nil, nil, &exitError{exitConfig, err.Error()}
	}
	return c, agent, nil
}

// buildAgent makes of a configuration what delivers its mail. Errors are
// configErrors: a user file that cannot be read is one.
func buildAgent(c *config, log *slog.Logger) (*delivery.Agent, error) {
	users, err := buildUsers(c, log)
	if err != nil {
		return nil, err
	}
	location, err := delivery.ParseLocation(c.Mailbox.Path)
	if err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("mailbox.path"), "mailbox.path", err.Error(), `write a path such as "~/Maildir"`)}
	}
	var durability maildir.Durability
	if err := durability.UnmarshalText([]byte(c.Mailbox.Durability)); err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("mailbox.durability"), "mailbox.durability", err.Error(), `write "full"`)}
	}
	var order maildir.SyncOrder
	if err := order.UnmarshalText([]byte(c.Mailbox.SyncOrder)); err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("mailbox.sync_order"), "mailbox.sync_order", err.Error(), `write "auto"`)}
	}
	quota, err := c.quota(log)
	if err != nil {
		return nil, err
	}
	fields, err := delivery.ParseTraceFields(c.Delivery.Headers)
	if err != nil {
		return nil, configErrors{c.doc.fault(c.doc.line("delivery.headers"), "delivery.headers", err.Error(), `write ["Received"]`)}
	}
	transports, err := c.buildTransports(log)
	if err != nil {
		return nil, err
	}
	crlf := c.Mailbox.Newlines == newlinesCRLF
	memory := int64(c.Limits.MemoryBody)
	if memory == 0 {
		memory = -1
	}
	return &delivery.Agent{
		Users:   users,
		Rules:   userdb.Rules{Delimiter: c.Address.Delimiter, FoldCase: c.Address.FoldCase},
		Mailbox: location,
		Writer: &maildir.Writer{
			Hostname: c.Hostname, Durability: durability, Order: order,
			Parallel: c.Limits.ParallelDeliveries, MinUID: c.minimumUID(),
			RemoveStale: c.Mailbox.CleanTmp, Stale: logStale(log),
			FileMode: os.FileMode(c.Mailbox.FileMode), DirMode: os.FileMode(c.Mailbox.DirectoryMode),
		},
		Spool:      delivery.Spool{Dir: c.StateDirectory, Memory: memory, CRLF: crlf},
		Trace:      delivery.TraceOptions{Hostname: c.Hostname, CRLF: crlf, Fields: fields},
		Transports: transports,
		Folders:    c.folders(),
		Quota:      quota,

		SingleInstance: c.Mailbox.SingleInstance,
		LoopCheck:      c.Delivery.LoopCheck,
		MaxReceived:    c.Delivery.MaxReceived,
		Log:            log,
	}, nil
}

// minimumUID is the lowest uid that mail may be written as at all.
func (c *config) minimumUID() uint32 {
	lowest := uint32(maildir.DefaultMinUID)
	for _, u := range c.Userdb {
		lowest = min(lowest, u.MinimumUID)
	}
	return lowest
}

// buildUsers opens the user databases in their order.
func buildUsers(c *config, log *slog.Logger) (userdb.Chain, error) {
	var chain userdb.Chain
	var errs configErrors
	for i, u := range c.Userdb {
		entry := userdb.Entry{Domains: u.Domains}
		switch u.Type {
		case userdbPasswdFile:
			file, err := userdb.NewPasswdFile(u.Path, userdb.PasswdFileOptions{FoldCase: c.Address.FoldCase, Logger: log})
			if err != nil {
				errs = append(errs, userFileErrors(c, fmt.Sprintf("userdb[%d].path", i), err)...)
				continue
			}
			entry.Database = file
		case userdbAny:
			entry.Database = userdb.Any{}
		case userdbSystem:
			entry.Database = &userdb.Cache{Database: &userdb.System{
				MinUID: u.MinimumUID, KnownUser: u.KnownUser, TrustNSS: u.TrustNSS,
			}}
		}
		chain = append(chain, entry)
	}
	if len(errs) > 0 {
		errs.sort()
		return nil, errs
	}
	return chain, nil
}

// userFileErrors turns the mistakes in a user file, which name its own lines, into
// errors like those of the configuration.
func userFileErrors(c *config, key string, err error) configErrors {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		var all configErrors
		for _, e := range many.Unwrap() {
			all = append(all, userFileErrors(c, key, e)...)
		}
		return all
	}
	var f *userdb.FileError
	if errors.As(err, &f) {
		if f.Line > 0 {
			return configErrors{{File: f.File, Line: f.Line, Problem: f.What, Remedy: f.Remedy}}
		}
		return configErrors{c.doc.fault(c.doc.line(key), key, f.File+": "+f.What, f.Remedy)}
	}
	return configErrors{c.doc.fault(c.doc.line(key), key, err.Error(), "mend the file, or name another")}
}

// newcomerTime is how long a client that has just connected may begin its transaction
// while the daemon stops: Postfix takes milliseconds, and defers all mail for a while
// where it is sent away.
const newcomerTime = 5 * time.Second

// buildServer makes a protocol server that hands its mail to the current agent.
func buildServer(c *config, proto listenProto, agents *agents, log *slog.Logger) *protocol.Server {
	mode := protocol.LMTP
	if proto == protoSMTP {
		mode = protocol.SMTP
	}
	return &protocol.Server{
		Mode:     mode,
		Hostname: c.Hostname,
		Handler:  agents,
		Policy:   agents.policy(),
		Trust:    trustLocal,
		Limits: protocol.Limits{
			MessageSize: orNone(int64(c.Limits.MessageSize)), Recipients: c.Limits.Recipients,
			Sessions: c.Limits.Sessions, Errors: c.Limits.Errors,
		},
		Timeouts: protocol.Timeouts{
			Command: time.Duration(c.Limits.CommandTimeout), Data: time.Duration(c.Limits.DataTimeout),
			Deliver: time.Duration(c.Delivery.DeliverTimeout), Newcomer: newcomerTime,
		},
		Log: log,
	}
}

// orNone translates "0 is no limit" of the configuration into the library's -1.
func orNone(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}
