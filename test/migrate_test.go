package test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// migratePage is a section of lmtpd-migrate(7), that of one program.
func migratePage(t *testing.T, program string) string {
	t.Helper()
	_, text, ok := strings.Cut(readFile(t, "../cmd/lmtpd/man/lmtpd-migrate.7"), "\n.Ss "+program+"\n")
	if !ok {
		t.Fatalf("no section %q", program)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	text, _, _ = strings.Cut(text, "\n.Ss ")
	return text
}

// settings are the names in the lists of a section.
func settings(text string) (names []string) {
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (.*)$`).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.Split(m[1], " , ")...)
	}
	return names
}

// compareSettings: what the page names exists, and what must be there is.
func compareSettings(t *testing.T, program string, known []string, must string) {
	t.Helper()
	named := settings(migratePage(t, program))
	if len(named) < 10 {
		t.Errorf("%s: %v", program, named)
	}
	for _, name := range named {
		if !slices.Contains(known, name) {
			t.Errorf("%s: %s is not one of its settings", program, name)
		}
	}
	re := regexp.MustCompile(must)
	for _, name := range known {
		if re.MatchString(name) && !slices.Contains(named, name) {
			t.Errorf("%s: %s is missing", program, name)
		}
	}
}

// names are the first groups of all matches.
func names(text []byte, pattern string) (all []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
		all = append(all, string(m[1]))
	}
	return all
}

// TestMigrateNamesPostfix: the settings in lmtpd-migrate(7) are Postfix's own.
func TestMigrateNamesPostfix(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(need(t, "postconf")[0], "-d").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := append(names(out, `(?m)^([a-z]\w*) =`), "virtual_destination_recipient_limit")
	compareSettings(t, "Postfix virtual(8)", known, `^virtual_(mailbox_\w+|uid_maps|gid_maps|minimum_uid|transport)$`)
	compareSettings(t, "Postfix local(8)", known, `^(home_mailbox|mail_spool_directory|forward_path|luser_relay|(mailbox_(transport|command)|fallback_transport)(_maps)?)$`)
}

// TestMigrateNamesDovecot: and those of Dovecot and its quota plugin.
func TestMigrateNamesDovecot(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(need(t, "doveconf")[0], "-d")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	known := append(names(out, `(?m)^ *([a-z]\w*) = `), names(out, `(?m)^ *(\w+_listener) `)...)
	plugin, err := os.ReadFile("/usr/share/dovecot/conf.d/90-quota.conf")
	if err != nil {
		t.Fatal(err)
	}
	known = append(known, names(plugin, `(?m)^  #(quota\w*) = `)...)
	compareSettings(t, "Dovecot LMTP", known, `^(lmtp_\w+|lda_\w+|quota_\w+|quota|mail_fsync|mail_location|recipient_delimiter|auth_username_format)$`)
}

// TestMigrateNamesExim: and those of Exim's appendfile, as its specification has them.
func TestMigrateNamesExim(t *testing.T) {
	t.Parallel()
	packed, err := os.ReadFile(filepath.Join(eximRoot, "usr/share/doc/exim4-base/spec.txt.gz"))
	if err != nil {
		if require && os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	part := func(from, to string) []byte {
		_, rest, ok := bytes.Cut(spec, []byte("\n"+from))
		text, _, end := bytes.Cut(rest, []byte("\n"+to))
		if !ok || !end {
			t.Fatalf("no chapter %q to %q", from, to)
		}
		return text
	}
	const option = `(?m)^\|(\w+) *\|Use: `
	generic := names(part("24. GENERIC OPTIONS FOR TRANSPORTS", "25. ADDRESS BATCHING"), option)
	private := names(part("26.2 Private options for appendfile\n", "26.3 Operational"), option)
	if len(generic) < 20 || len(private) < 40 {
		t.Fatalf("%v, %v", generic, private)
	}
	must := fmt.Sprintf("^(%s)$", strings.Join(private, "|"))
	compareSettings(t, "Exim appendfile", append(generic, private...), must)
}

// TestMigrateVirtual: the commands that lmtpd-migrate(7) gives make a user file of
// virtual_mailbox_maps, which lmtpd delivers by.
func TestMigrateVirtual(t *testing.T) {
	t.Parallel()
	need(t, "postmap", "postconf", "awk")
	_, text, _ := strings.Cut(migratePage(t, "Postfix virtual(8)"), "\n.Bd -literal -offset 2n\n")
	commands, _, _ := strings.Cut(text, "\n.Ed")
	dir := tempDir(t)
	base := filepath.Join(dir, "vhosts")
	mkdir(t, filepath.Join(base, "example.org"), nil)
	writeFile(t, filepath.Join(dir, "main.cf"), "virtual_mailbox_base = "+base+"\n")
	writeFile(t, filepath.Join(dir, "vmailbox"), "anna@example.org example.org/anna/\nbob@example.org example.org/bob/\n"+
		"mbox@example.org example.org/mbox\n@example.org example.org/all/\n")
	run(t, "", need(t, "postmap")[0], "-c", dir, "hash:"+filepath.Join(dir, "vmailbox"))
	commands = strings.NewReplacer(`\(aq`, "'", `\(ti`, "~", `\(ha`, "^", `\e`, `\`, "/etc/postfix", dir, "/etc/lmtpd", dir,
		"postmap -s", "postmap -c "+dir+" -s", "postconf -h", "postconf -c "+dir+" -h").Replace(commands)
	shell := exec.Command("sh", "-ec", commands)
	shell.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, commands)
	}
	users := readFile(t, filepath.Join(dir, "users"))
	if strings.Count(users, "\n") != 2 {
		t.Errorf("users:\n%s", users)
	}
	config := filepath.Join(dir, "lmtpd.toml")
	writeFile(t, config, fmt.Sprintf("state_directory = %q\n[[userdb]]\ntype = \"passwd-file\"\npath = \"%s/users\"\n", dir, dir))
	run(t, header+"\r\n", program, "deliver", "-c", config, "anna@example.org", "bob@example.org")
	for _, user := range []string{"anna", "bob"} {
		oneMessage(t, filepath.Join(base, "example.org", user))
	}
}
