package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// size is a number of octets, written "64 MiB", "10MB", "512" or as a plain number.
type size int64

var sizeUnits = []struct {
	name   string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
	{"B", 1}, {"", 1},
}

func (s *size) UnmarshalText(text []byte) error {
	written := string(text)
	bad := &valueError{quoted(written) + " is not a size", `write octets, or a number and KiB, MiB, GiB or TiB, such as "64 MiB"`}
	digits := strings.TrimSpace(written)
	end := strings.IndexFunc(digits, func(r rune) bool { return (r < '0' || r > '9') && r != '_' })
	unit := ""
	if end >= 0 {
		digits, unit = digits[:end], strings.TrimLeft(digits[end:], " ")
	}
	// TOML lets underscores part the digits of a plain number.
	if digits = strings.ReplaceAll(digits, "_", ""); digits == "" {
		return bad
	}
	for _, u := range sizeUnits {
		if !strings.EqualFold(unit, u.name) {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/u.factor {
			return &valueError{quoted(written) + " is larger than any file can be", `write a smaller size, such as "64 MiB"`}
		}
		*s = size(n * u.factor)
		return nil
	}
	return bad
}

// kind is what an error says it expected, and whether a plain number will do.
func (s *size) kind() (string, bool) { return "a size", true }

// String is the shortest exact way to write s.
func (s size) String() string {
	for _, u := range []int{3, 2, 1, 0} {
		if f := sizeUnits[u].factor; s != 0 && int64(s)%f == 0 {
			return fmt.Sprintf("%d %s", int64(s)/f, sizeUnits[u].name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// sizeFlag is a size on a command line.
type sizeFlag struct{ *size }

func (f *sizeFlag) Set(s string) error { return f.UnmarshalText([]byte(s)) }
func (f *sizeFlag) Type() string       { return "size" }
func (f *sizeFlag) String() string {
	if f.size == nil || *f.size == 0 {
		return ""
	}
	return f.size.String()
}

// duration is a time.Duration written as in Go: "5m", "300s", "1h30m".
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	written := strings.TrimSpace(string(text))
	v, err := time.ParseDuration(written)
	if err != nil {
		if _, err := strconv.Atoi(written); err == nil && len(written) < 10 {
			return &valueError{"the duration " + written + " has no unit", fmt.Sprintf(`write "%ss" for seconds or "%sm" for minutes`, written, written)}
		}
		return &valueError{quoted(written) + " is not a duration", `write a number and s, m or h, such as "300s" or "5m"`}
	}
	*d = duration(v)
	return nil
}

// kind takes a plain number for the sake of the better error.
func (d *duration) kind() (string, bool) { return "a duration", true }

func (d duration) String() string { return time.Duration(d).String() }

// fileMode is the permission bits of a socket, written in octal: "0660".
type fileMode uint32

func (m *fileMode) UnmarshalText(text []byte) error {
	written := string(text)
	n, err := strconv.ParseUint(written, 8, 32)
	switch {
	case err != nil || len(written) < 3 || len(written) > 4:
		return &valueError{quoted(written) + " is not a file mode", `write three or four octal digits in quotes, such as "0660"`}
	case n > 0o777:
		return &valueError{quoted(written) + " has bits that mean nothing on a socket", `use the permission bits only, such as "0660"`}
	case n&0o222 == 0:
		return &valueError{quoted(written) + " lets nobody connect", `connecting needs write permission: "0660" for owner and group`}
	}
	*m = fileMode(n)
	return nil
}

// kind refuses a plain number: 660 would be 01224.
func (m *fileMode) kind() (string, bool) { return "octal digits in quotes", false }

func (m fileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// mailMode is the permission bits of what lmtpd makes in a mailbox.
type mailMode uint32

func (m *mailMode) UnmarshalText(text []byte) error {
	written := string(text)
	n, err := strconv.ParseUint(written, 8, 32)
	switch {
	case err != nil || len(written) < 3 || len(written) > 4 || n > 0o777:
		return &valueError{quoted(written) + " is not a mode of files", `write three or four octal digits in quotes, such as "0600"`}
	case n&0o002 != 0:
		return &valueError{quoted(written) + " lets everybody write to mail", `let a group do that at most, such as "0660"`}
	}
	*m = mailMode(n)
	return nil
}

// kind refuses a plain number, as that of fileMode does.
func (m *mailMode) kind() (string, bool) { return "octal digits in quotes", false }

func (m mailMode) String() string { return fileMode(m).String() }

// The words that a key may have.
type (
	listenProto   string
	userdbType    string
	durability    string
	syncOrder     string
	newlines      string
	overQuota     string
	transportType string
	tlsMode       string
	logLevel      string
	logFormat     string
	logTarget     string
)

const (
	protoLMTP listenProto = "lmtp"
	protoSMTP listenProto = "smtp"

	// protoWriter is the one between front and writer; no [[listen]] has it.
	protoWriter listenProto = "writer"

	userdbPasswdFile userdbType = "passwd-file"
	userdbSystem     userdbType = "system"
	userdbAny        userdbType = "any"

	durabilityFull durability = "full" // file and directory are on disk before the 250
	durabilityFile durability = "file" // the file only
	durabilityNone durability = "none" // when the kernel gets to it

	syncOrderAuto   syncOrder = "auto"   // content and name together where that is known to be safe
	syncOrderStrict syncOrder = "strict" // the content before the name

	overQuotaTemporary      overQuota = "temporary"       // 452 4.2.2
	overQuotaPermanent      overQuota = "permanent"       // 552 5.2.2
	overQuotaTemporaryFirst overQuota = "temporary-first" // the one for a time, then the other

	transportRelay   transportType = "relay"
	transportPipe    transportType = "pipe"
	transportDiscard transportType = "discard"
	transportDebug   transportType = "debug"

	tlsOff           tlsMode = "off"
	tlsOpportunistic tlsMode = "opportunistic"
	tlsRequired      tlsMode = "required"
	tlsImplicit      tlsMode = "implicit"

	newlinesLF   newlines = "lf"
	newlinesCRLF newlines = "crlf"

	logLevelDebug logLevel = "debug"
	logLevelInfo  logLevel = "info"
	logLevelWarn  logLevel = "warn"
	logLevelError logLevel = "error"

	logFormatText logFormat = "text"
	logFormatJSON logFormat = "json"

	logTargetAuto    logTarget = "auto" // the journal if standard error leads there
	logTargetJournal logTarget = "journal"
	logTargetStderr  logTarget = "stderr"
)

func (v *overQuota) UnmarshalText(t []byte) error {
	return oneOf(v, t, overQuotaTemporary, overQuotaPermanent, overQuotaTemporaryFirst)
}

// tlsModes are in the order of relay.Security.
var tlsModes = []tlsMode{tlsOff, tlsOpportunistic, tlsRequired, tlsImplicit}

func (v *tlsMode) UnmarshalText(t []byte) error { return oneOf(v, t, tlsModes...) }
func (v *transportType) UnmarshalText(t []byte) error {
	return oneOf(v, t, transportRelay, transportPipe, transportDiscard, transportDebug)
}
func (v *listenProto) UnmarshalText(t []byte) error { return oneOf(v, t, protoLMTP, protoSMTP) }
func (v *userdbType) UnmarshalText(t []byte) error {
	return oneOf(v, t, userdbPasswdFile, userdbSystem, userdbAny)
}
func (v *durability) UnmarshalText(t []byte) error {
	return oneOf(v, t, durabilityFull, durabilityFile, durabilityNone)
}
func (v *syncOrder) UnmarshalText(t []byte) error {
	return oneOf(v, t, syncOrderAuto, syncOrderStrict)
}
func (v *newlines) UnmarshalText(t []byte) error { return oneOf(v, t, newlinesLF, newlinesCRLF) }
func (v *logLevel) UnmarshalText(t []byte) error {
	return oneOf(v, t, logLevelDebug, logLevelInfo, logLevelWarn, logLevelError)
}
func (v *logFormat) UnmarshalText(t []byte) error { return oneOf(v, t, logFormatText, logFormatJSON) }
func (v *logTarget) UnmarshalText(t []byte) error {
	return oneOf(v, t, logTargetAuto, logTargetJournal, logTargetStderr)
}

// oneOf sets v to text if that is one of words.
func oneOf[T ~string](v *T, text []byte, words ...T) error {
	names := make([]string, len(words))
	for i, w := range words {
		if string(text) == string(w) {
			*v = w
			return nil
		}
		names[i] = strconv.Quote(string(w))
	}
	list := strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
	return &valueError{quoted(string(text)) + " is not known", "write " + list}
}
