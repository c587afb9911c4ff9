package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lmtpd/lmtpd/delivery"
)

func readPage(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("man", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// section is what stands below a heading (.Sh) of a page.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n.Sh "+heading+"\n")
	if !ok {
		t.Fatalf("no section %s", heading)
	}
	text, _, _ := strings.Cut(rest, "\n.Sh ")
	return "\n" + text + "\n"
}

// items are the heads of lists in a text that begin with a macro such as "Fl".
func items(text, macro string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^\.It `+macro+` (.*)$`).FindAllStringSubmatch(text, -1) {
		for word := range strings.FieldsSeq(m[1]) {
			list = append(list, word)
		}
	}
	return list
}

// ownCommands are those that are not cobra's.
func ownCommands() (list []*cobra.Command) {
	for _, cmd := range rootCommand().Commands() {
		if cmd.Name() != "help" && cmd.Name() != "completion" && !cmd.Hidden {
			list = append(list, cmd)
		}
	}
	return list
}

// Each command has a page with all its options and exit codes, and no other.
func TestManOfCommands(t *testing.T) {
	overview := readPage(t, "lmtpd.8")
	for _, cmd := range ownCommands() {
		name := "lmtpd-" + cmd.Name()
		if !strings.Contains(overview, "\n.It Xr "+name+" 8\n") {
			t.Errorf("lmtpd.8 does not list %s", name)
		}
		page := readPage(t, name+".8")
		if !strings.HasPrefix(section(t, page, "NAME"), "\n.Nm "+name+"\n.Nd ") {
			t.Errorf("%s.8: NAME", name)
		}
		documented := map[string]bool{}
		for _, m := range regexp.MustCompile(`\bFl (-?[a-z0-9-]+)`).FindAllStringSubmatch(strings.Join(regexp.MustCompile(`(?m)^\.It Fl .*$`).FindAllString(page, -1), "\n"), -1) {
			documented["-"+m[1]] = true
		}
		has, help := map[string]bool{}, ""
		for _, c := range append([]*cobra.Command{cmd}, cmd.Commands()...) {
			c.InitDefaultHelpFlag()
			c.Flags().VisitAll(func(f *pflag.Flag) {
				has["--"+f.Name] = true
				if f.Shorthand != "" {
					has["-"+f.Shorthand] = true
				}
			})
			help += c.Long
		}
		for form := range has {
			if !documented[form] {
				t.Errorf("%s.8 does not describe %s", name, form)
			}
		}
		for form := range documented {
			if !has[form] {
				t.Errorf("%s.8 describes %s, which it does not have", name, form)
			}
		}
		if !strings.Contains(section(t, page, "EXIT STATUS"), "\n.It 0\n") || !strings.Contains(section(t, page, "EXIT STATUS"), "\n.It 64\n") {
			t.Errorf("%s.8: exit status", name)
		}
		for _, m := range regexp.MustCompile(`\b(6[4-9]|7[0-8])\b`).FindAllString(help, -1) {
			if !strings.Contains(section(t, page, "EXIT STATUS"), "\n.It "+m+"\n") {
				t.Errorf("%s.8: exit code %s is in --help and not here", name, m)
			}
		}
	}
}

// Each exit code of the program is in lmtpd(8).
func TestManOfExitCodes(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range regexp.MustCompile(`(?m)^\texit[A-Z]\w* += (\d+)`).FindAllStringSubmatch(string(source), -1) {
		codes = append(codes, m[1])
	}
	var have []string
	for _, m := range regexp.MustCompile(`(?m)^\.It (\d+)$`).FindAllStringSubmatch(section(t, readPage(t, "lmtpd.8"), "EXIT STATUS"), -1) {
		have = append(have, m[1])
	}
	if len(codes) < 7 || !slices.Equal(have, codes) {
		t.Errorf("lmtpd.8 has %v, main.go %v", have, codes)
	}
}

// Each key of the configuration is in lmtpd.toml(5), below its table, and no other.
func TestManOfConfiguration(t *testing.T) {
	var have []string
	table := ""
	for line := range strings.Lines(section(t, readPage(t, "lmtpd.toml.5"), "DESCRIPTION")) {
		if m := regexp.MustCompile(`^\.Ss (?:\[+([a-z_.]+)\]+ tables?|Top level)$`).FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			table = m[1]
		}
		for _, key := range items(line, "Ic") {
			if key != "," {
				have = append(have, strings.TrimPrefix(table+"."+key, "."))
			}
		}
	}
	want := allKeys("", reflect.TypeFor[config]())
	for _, key := range want {
		if !slices.Contains(have, key) {
			t.Errorf("%s is not in lmtpd.toml(5)", key)
		}
	}
	for _, key := range have {
		if !slices.Contains(want, key) {
			t.Errorf("%s is in lmtpd.toml(5) and is no key", key)
		}
	}
}

// recordedLog keeps what is logged.
type recordedLog struct{ records []slog.Record }

func (l *recordedLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *recordedLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *recordedLog) WithGroup(string) slog.Handler            { return l }
func (l *recordedLog) Handle(_ context.Context, r slog.Record) error {
	l.records = append(l.records, r)
	return nil
}

// The keys of a recipient's log line are those of lmtpd(8), in its order.
func TestManOfLog(t *testing.T) {
	_, config := explainSite(t)
	c, err := loadConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	log := &recordedLog{}
	agent, err := buildAgent(c, slog.New(log))
	if err != nil {
		t.Fatal(err)
	}
	env := delivery.Envelope{From: "x@example.net", Rcpts: []string{"ann@example.org", "ann@example.org", "eve@example.org", "nobody@example.org", "@@"}}
	message := "Received: by mta (Postfix) id 4XyZ; date\nMessage-ID: <m@example.net>\n\nx\n"
	if _, err := agent.Submit(t.Context(), env, strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	documented := items(section(t, readPage(t, "lmtpd.8"), "LOGS"), "Cm")
	statuses := map[string]int{}
	for _, r := range log.records {
		if r.Message != "recipient" {
			continue
		}
		var keys []string
		status := ""
		r.Attrs(func(a slog.Attr) bool {
			keys = append(keys, a.Key)
			if a.Key == "status" {
				status = a.Value.String()
			}
			return true
		})
		statuses[status]++
		want := slices.DeleteFunc(slices.Clone(documented), func(k string) bool {
			return k == "file" && status != "delivered" || k == "error" && status == "delivered"
		})
		if !slices.Equal(keys, want) {
			t.Errorf("the line of a recipient that was %s has\n%v\nand lmtpd(8)\n%v", status, keys, want)
		}
	}
	if statuses["delivered"] != 2 || statuses["deferred"] != 1 || statuses["refused"] != 2 {
		t.Errorf("%v", statuses)
	}
}

// The metrics that the daemon exports are those of lmtpd(8).
func TestManOfMetrics(t *testing.T) {
	o := newObserver(newTestClock().time)
	o.outcome(goodOutcome)
	o.metrics.lookups.WithLabelValues("x", "found")
	o.metrics.lookupTime.WithLabelValues("x")
	families, err := o.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	documented := items(section(t, readPage(t, "lmtpd.8"), "METRICS"), "Cm")
	var exported []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "lmtpd_") {
			exported = append(exported, f.GetName())
		}
	}
	slices.Sort(documented)
	if !slices.Equal(documented, exported) {
		t.Errorf("lmtpd.8 has\n%v\nexported are\n%v", documented, exported)
	}
}

// mandoc finds nothing to complain about but pages that this machine does not have,
// and references among our own lead somewhere.
func TestManIsClean(t *testing.T) {
	pages, err := filepath.Glob("man/*.[1-8]")
	if err != nil || len(pages) < 10 {
		t.Fatalf("%v, %v", pages, err)
	}
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`(?m)^\.Xr (lmtpd\S*) (\d)`).FindAllStringSubmatch(readPage(t, filepath.Base(page)), -1) {
			if _, err := os.Stat("man/" + m[1] + "." + m[2]); err != nil {
				t.Errorf("%s refers to %s(%s)", page, m[1], m[2])
			}
		}
	}
	if _, err := exec.LookPath("mandoc"); err != nil {
		t.Skip("no mandoc here (test/setup.sh installs it)")
	}
	out, _ := exec.Command("mandoc", append([]string{"-T", "lint"}, pages...)...).Output() // exit status 1: a warning
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "referenced manual not found") {
			t.Error(strings.TrimSpace(line))
		}
	}
}
