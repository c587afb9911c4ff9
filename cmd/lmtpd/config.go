package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/lmtpd/lmtpd/delivery"
	"github.com/lmtpd/lmtpd/delivery/command"
)

// defaultConfigPath is read where no -c is given.
const defaultConfigPath = "/etc/lmtpd/lmtpd.toml"

// maxConfigSize bounds how much of a configuration file is read, in octets, so that
// a path such as /dev/zero is an error and not a full memory.
const maxConfigSize = 1 << 20

// config is the whole configuration, defaults filled in and every value validated.
// It is read-only once loadConfig has returned it: a reload makes a new one.
//
// The toml tag is the key as lmtpd.toml(5) names it; the example tag is what an error
// about a value of the wrong type shows.
type config struct {
	Hostname       string               `toml:"hostname" example:"\"mx.example.org\""` // never empty after loadConfig
	StateDirectory string               `toml:"state_directory" example:"\"/var/lib/lmtpd\""`
	Listen         []listenConfig       `toml:"listen"`
	Address        addressConfig        `toml:"address"`
	Userdb         []userdbConfig       `toml:"userdb"`
	Mailbox        mailboxConfig        `toml:"mailbox"`
	Limits         limitsConfig         `toml:"limits"`
	Delivery       deliveryConfig       `toml:"delivery"`
	Filing         []filingConfig       `toml:"filing"`
	Transport      []transportConfig    `toml:"transport"`
	QuotaWarning   []quotaWarningConfig `toml:"quota_warning"`
	Commands       commandsConfig       `toml:"commands"`
	Writer         writerConfig         `toml:"writer"`
	Log            logConfig            `toml:"log"`
	Metrics        metricsConfig        `toml:"metrics"`
	Status         statusConfig         `toml:"status"`

	doc            *document                     // where each key stands, for errors found later
	inheritedPorts []int                         // TCP ports of the sockets that systemd has passed
	former         map[string]delivery.Transport // those of the configuration before, by name
	formerCommands *command.Runner               // that of its quota warnings
}

// listenConfig is one [[listen]]. An Address that is empty means a socket of this Name
// which systemd passes.
type listenConfig struct {
	Name     string        `toml:"name" example:"\"lmtp\""`
	Protocol listenProto   `toml:"protocol" example:"\"lmtp\""`
	Address  socketAddress `toml:"address" example:"\"unix:/run/lmtpd/lmtp.sock\""`
	Mode     fileMode      `toml:"mode" example:"\"0660\""`     // Unix sockets only
	Owner    string        `toml:"owner" example:"\"lmtpd\""`   // name or number; "" leaves it
	Group    string        `toml:"group" example:"\"postfix\""` // name or number; "" leaves it
}

// addressConfig says how addresses are read.
type addressConfig struct {
	Delimiter string `toml:"delimiter" example:"\"+\""` // any one of these octets; "" for no detail
	FoldCase  bool   `toml:"fold_case" example:"true"`
}

// userdbConfig is one [[userdb]]; which fields count depends on Type.
type userdbConfig struct {
	Type       userdbType `toml:"type" example:"\"passwd-file\""`
	Path       string     `toml:"path" example:"\"/etc/lmtpd/users\""` // passwd-file
	Domains    []string   `toml:"domains" example:"[\"example.org\"]"` // lower case; none: every domain
	MinimumUID uint32     `toml:"minimum_uid" example:"1000"`          // lowest uid that mail of this database is written as
	KnownUser  string     `toml:"known_user" example:"\"alice\""`      // system: see userdb.System
	TrustNSS   []string   `toml:"trust_nss" example:"[\"sss\"]"`       // system: see userdb.System
}

// mailboxConfig says where mail goes.
type mailboxConfig struct {
	Path         string     `toml:"path" example:"\"~/Maildir\""` // a template, see delivery.Location
	DetailFolder bool       `toml:"detail_folder" example:"true"`
	Durability   durability `toml:"durability" example:"\"full\""`
	SyncOrder    syncOrder  `toml:"sync_order" example:"\"auto\""`
	Newlines     newlines   `toml:"newlines" example:"\"lf\""`
	CleanTmp     bool       `toml:"clean_tmp" example:"true"` // remove stale files

	SingleInstance bool `toml:"single_instance" example:"true"` // copies of one owner are one file

	FileMode      mailMode `toml:"file_mode" example:"\"0600\""`      // of messages
	DirectoryMode mailMode `toml:"directory_mode" example:"\"0700\""` // of directories that are made

	CreateFolders   bool      `toml:"create_folders" example:"false"`
	FolderSeparator string    `toml:"folder_separator" example:"\"/\""`
	Quota           size      `toml:"quota" example:"\"1 GiB\""`          // 0: no limit
	QuotaMessages   int       `toml:"quota_messages" example:"100000"`    // 0: no limit
	QuotaGrace      bool      `toml:"quota_grace" example:"true"`         // one message may go over
	QuotaIgnore     []string  `toml:"quota_ignore" example:"[\"Trash\"]"` // folders that do not count
	QuotaWarn       []int     `toml:"quota_warn" example:"[80, 95]"`      // percentages that are logged
	OverQuota       overQuota `toml:"over_quota" example:"\"temporary\""`
	OverQuotaAfter  duration  `toml:"over_quota_after" example:"\"72h\""` // temporary-first: until then
}

// filingConfig is one [[filing]]: mail with such a header field goes to a folder.
type filingConfig struct {
	Field  string `toml:"field" example:"\"X-Spam-Flag\""`
	Value  string `toml:"value" example:"\"YES\""`
	Folder string `toml:"folder" example:"\"Junk\""`
	Create bool   `toml:"create" example:"true"`
	Seen   bool   `toml:"seen" example:"false"`
}

// transportConfig is one [[transport]]: where mail goes besides into Maildirs. Which
// fields count depends on Type.
type transportConfig struct {
	Name    string        `toml:"name" example:"\"backends\""`
	Type    transportType `toml:"type" example:"\"relay\""`
	Domains []string      `toml:"domains" example:"[\"lists.example.org\"]"` // of recipients whose record names none; lower case

	Protocol    listenProto `toml:"protocol" example:"\"lmtp\""`
	Hosts       []string    `toml:"hosts" example:"[\"tcp:10.0.0.1:24\"]"` // none: the user record's
	Port        int         `toml:"port" example:"24"`                     // of the user record's host
	TLS         tlsMode     `toml:"tls" example:"\"required\""`
	CAFile      string      `toml:"ca_file" example:"\"/etc/lmtpd/ca.pem\""` // "": those of the system
	IdleTimeout duration    `toml:"idle_timeout" example:"\"30s\""`

	Command    []string `toml:"command" example:"[\"/usr/local/bin/tickets\", \"{detail}\"]"`
	WritePaths []string `toml:"write_paths" example:"[\"/var/spool/tickets\"]"` // directories, for a process that is confined

	Parallel int      `toml:"parallel" example:"20"` // connections to one host, or programs
	Timeout  duration `toml:"timeout" example:"\"5m\""`

	Path string `toml:"path" example:"\"/var/lib/lmtpd/shown\""` // "": the log; "-": standard output
}

// quotaWarningConfig is one [[quota_warning]]: who is told that a mailbox fills up.
type quotaWarningConfig struct {
	Percent int      `toml:"percent" example:"90"`
	Mail    string   `toml:"mail" example:"\"/etc/lmtpd/over-quota.txt\""`                     // to the user; "": none
	Command []string `toml:"command" example:"[\"/usr/local/bin/over-quota\", \"{address}\"]"` // none: no program
}

// commandsConfig bounds the programs that are run.
type commandsConfig struct {
	User      string   `toml:"user" example:"\"lmtpd-commands\""` // "": whom this process runs as, if that is not root
	TimeLimit duration `toml:"time_limit" example:"\"30s\""`
	Parallel  int      `toml:"parallel" example:"8"`
}

// limitsConfig bounds what peers can make the daemon spend.
type limitsConfig struct {
	MessageSize        size     `toml:"message_size" example:"\"64 MiB\""` // 0: no limit
	Recipients         int      `toml:"recipients" example:"1000"`
	Sessions           int      `toml:"sessions" example:"1000"`
	CommandTimeout     duration `toml:"command_timeout" example:"\"5m\""`
	DataTimeout        duration `toml:"data_timeout" example:"\"3m\""`
	Errors             int      `toml:"errors" example:"10"`
	MemoryBody         size     `toml:"memory_body" example:"\"256 KiB\""` // 0: every body goes to a file
	ParallelDeliveries int      `toml:"parallel_deliveries" example:"64"`
	IdleExit           duration `toml:"idle_exit" example:"\"10m\""` // 0: never
}

// deliveryConfig is about one message on its way.
type deliveryConfig struct {
	Transport      string   `toml:"transport" example:"\"maildir\""`                                     // "maildir", or the name of a [[transport]]
	Headers        []string `toml:"headers" example:"[\"Return-Path\", \"Delivered-To\", \"Received\"]"` // see delivery.TraceFields
	LoopCheck      bool     `toml:"loop_check" example:"true"`
	MaxReceived    int      `toml:"max_received" example:"100"`
	DeliverTimeout duration `toml:"deliver_timeout" example:"\"580s\""`
	Redelivery     bool     `toml:"redelivery" example:"true"`
	RedeliveryAge  duration `toml:"redelivery_age" example:"\"120h\""`
}

// writerConfig is the second process, which writes the mail of system users. An
// empty Socket: there is none.
type writerConfig struct {
	Socket    optionalSocket `toml:"socket" example:"\"unix:/run/lmtpd/writer.sock\""` // a Unix socket
	FrontUser string         `toml:"front_user" example:"\"lmtpd\""`                   // name or number
}

// logConfig is what is logged, and how.
type logConfig struct {
	Level  logLevel  `toml:"level" example:"\"info\""`
	Format logFormat `toml:"format" example:"\"text\""` // of standard error
	Target logTarget `toml:"target" example:"\"auto\""`
}

// metricsConfig is where Prometheus asks. An empty Address: nowhere.
type metricsConfig struct {
	Address optionalSocket `toml:"address" example:"\"unix:/run/lmtpd/metrics.sock\""` // a Unix socket or a loopback address
	Mode    fileMode       `toml:"mode" example:"\"0660\""`
	Group   string         `toml:"group" example:"\"prometheus\""`
}

// statusConfig is where `lmtpd status` asks. An empty Socket: nowhere.
type statusConfig struct {
	Socket optionalSocket `toml:"socket" example:"\"/run/lmtpd/status.sock\""` // a Unix socket
	Mode   fileMode       `toml:"mode" example:"\"0600\""`
	Group  string         `toml:"group" example:"\"adm\""`
}

// defaultConfig is the configuration of an empty file. Hostname stays empty here:
// loadConfig asks the machine only where the file says nothing.
func defaultConfig() *config {
	return &config{
		StateDirectory: defaultStateDirectory(os.Getenv("STATE_DIRECTORY")),
		Address:        addressConfig{Delimiter: "+", FoldCase: true},
		Mailbox: mailboxConfig{
			Path:         "~/Maildir",
			DetailFolder: true,
			Durability:   durabilityFull,
			SyncOrder:    syncOrderAuto,
			Newlines:     newlinesLF,
			CleanTmp:     true,

			FileMode:      0o600,
			DirectoryMode: 0o700,

			FolderSeparator: ".",
			OverQuota:       overQuotaTemporary,
			OverQuotaAfter:  duration(72 * time.Hour),
		},
		Limits: limitsConfig{
			MessageSize:        64 << 20,
			Recipients:         1000,
			Sessions:           1000,
			CommandTimeout:     duration(5 * time.Minute),
			DataTimeout:        duration(3 * time.Minute),
			Errors:             10,
			MemoryBody:         256 << 10,
			ParallelDeliveries: 64,
		},
		Delivery: deliveryConfig{
			Transport:      "maildir",
			Headers:        []string{"Return-Path", "X-Original-To", "Delivered-To", "Received"},
			LoopCheck:      true,
			MaxReceived:    100,
			DeliverTimeout: duration(580 * time.Second),
			Redelivery:     true,
			RedeliveryAge:  duration(120 * time.Hour),
		},
		Commands: commandsConfig{TimeLimit: duration(30 * time.Second), Parallel: 8},
		Writer:   writerConfig{FrontUser: "lmtpd"},
		Log:      logConfig{Level: logLevelInfo, Format: logFormatText, Target: logTargetAuto},
		Metrics:  metricsConfig{Mode: 0o660},
		Status:   statusConfig{Socket: optionalSocket{socketAddress{Network: "unix", Address: defaultStatusSocket}}, Mode: 0o600},
	}
}

// defaultStateDirectory takes the first of the directories that systemd's
// StateDirectory= puts into the environment.
func defaultStateDirectory(fromSystemd string) string {
	if first, _, _ := strings.Cut(fromSystemd, ":"); strings.HasPrefix(first, "/") {
		return first
	}
	return "/var/lib/lmtpd"
}

// loadConfig reads and validates the file at path. The error is a configErrors with
// every fault that was found, in the order of the file.
func loadConfig(path string) (*config, error) {
	data, err := readConfigFile(path)
	if err != nil {
		return nil, configErrors{err}
	}
	return parseConfig(path, data)
}

// readConfigFile returns the content of path; its errors have no line.
func readConfigFile(path string) ([]byte, *configError) {
	fail := func(problem, remedy string) ([]byte, *configError) {
		return nil, &configError{File: path, Problem: problem, Remedy: remedy}
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail("no such file", "create it (every key has a default, an empty file will do), or name another with -c FILE")
	case errors.Is(err, fs.ErrPermission):
		return fail(fmt.Sprintf("permission denied for uid %d", os.Geteuid()), "let this user read the file and enter the directories above it")
	case err != nil:
		return fail(plainError(err), "name a readable file with -c FILE")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	switch {
	case errors.Is(err, syscall.EISDIR):
		return fail("is a directory", "name the file in it: -c "+strings.TrimRight(path, "/")+"/lmtpd.toml")
	case err != nil:
		return fail(plainError(err), "name a readable file with -c FILE")
	case len(data) > maxConfigSize:
		return fail("larger than 1 MiB", "this is hardly a configuration; name another file with -c FILE")
	}
	return data, nil
}

// parseConfig is loadConfig for content that has been read already; file is its name
// in errors.
func parseConfig(file string, data []byte) (*config, error) {
	c := defaultConfig()
	c.doc = readDocument(file, data, c)
	c.fillElements()
	c.validate()
	if len(c.doc.errs) > 0 {
		c.doc.errs.sort()
		return nil, c.doc.errs.capped()
	}
	if c.Hostname == "" {
		c.Hostname = machineName()
	}
	return c, nil
}

// fillElements gives the entries of lists their defaults: they do not exist yet when
// the defaults of everything else are laid below the file.
func (c *config) fillElements() {
	for i := range c.Listen {
		l := &c.Listen[i]
		if l.Protocol == "" {
			l.Protocol = protoLMTP
		}
		if l.Mode == 0 && l.Address.Network != "tcp" {
			l.Mode = 0o660
		}
		if l.Name == "" {
			l.Name = string(l.Protocol)
		}
	}
	c.fillTransports()
	for i := range c.Userdb {
		u := &c.Userdb[i]
		if !c.doc.has(fmt.Sprintf("userdb[%d].minimum_uid", i)) {
			u.MinimumUID = 1000
		}
		for j, d := range u.Domains {
			u.Domains[j] = strings.ToLower(d)
		}
	}
}

// machineName is the name of this host where it can stand in a mail header.
func machineName() string {
	name, err := os.Hostname()
	if err != nil || checkHostname(name) != nil {
		return "localhost"
	}
	return name
}

// plainError drops what an *fs.PathError repeats: the operation and the path.
func plainError(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}
