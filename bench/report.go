package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// publish prints tables and targets, and puts them in the place of the last ones
// in RESULTS.md, with a picture.
func (o options) publish(part string, tables string, targets []target) error {
	text := targetTable(targets) + "\n" + tables
	fmt.Print("\n", text)
	if o.out == "" {
		return nil
	}
	picture := part + ".svg"
	if err := os.WriteFile(filepath.Join(o.out, picture), []byte(drawTargets(targets)), 0o644); err != nil {
		return err
	}
	name := filepath.Join(o.out, "RESULTS.md")
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%s\n![Each figure against its target](%s)\n\n", o.circumstances(), picture)
	renewed, err := replacePart(string(old), part, head+text)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(renewed), 0o644)
}

// replacePart puts text between the two comments that mark a part of a document.
// What people have written outside of them stays.
func replacePart(doc, part, text string) (string, error) {
	begin, end := "<!-- begin "+part+" -->\n", "<!-- end "+part+" -->"
	i := strings.Index(doc, begin)
	j := strings.Index(doc, end)
	if i < 0 || j < i {
		return "", fmt.Errorf("no %q and %q in it", strings.TrimSpace(begin), end)
	}
	return doc[:i+len(begin)] + "\n" + text + "\n" + doc[j:], nil
}

func targetTable(targets []target) string {
	var b strings.Builder
	b.WriteString("| figure | target | measured | |\n|---|---|---|---|\n")
	for _, t := range targets {
		verdict := "reached"
		switch {
		case !t.known:
			verdict = ""
		case !t.met():
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", t.what, t.wants(), t.gets(), verdict)
	}
	return b.String()
}

// deliveryTables shows the medians that the ratios are made of.
func deliveryTables(r results) string {
	var b strings.Builder
	names := []string{
		nameLMTPD, nameLMTPDUsers, nameLMTPDLinks, nameDovecot, nameDovecotUsers,
		nameVirtual, nameRelayed, strict.name, commit.name, phases.name, links.name,
	}
	described := map[string]string{cold: "100 connections at once; the times are those to the reply to LHLO", sixteen: scenarioD16.what}
	order := []string{}
	for _, sc := range scenarios {
		described[sc.name] = sc.what
		order = append(order, sc.name)
	}
	for _, sc := range []string{"b", "c", "d"} {
		described[queued+sc] = described[sc] + ", by SMTP through Postfix's queue; time until the last message is in its mailbox"
	}
	for _, sc := range append(order, sixteen, cold, queued+"b", queued+"c", queued+"d") {
		title := false
		for _, name := range names {
			if _, ok := r.median(sc, name, rate); !ok {
				continue
			}
			if !title {
				title = true
				fmt.Fprintf(&b, "**%s**: %s\n\n", sc, described[sc])
				b.WriteString("| | deliveries/s | p50 ms | p99 ms | CPU ms per delivery | PSS MiB | processes | refused | octets to disk per octet |\n|---|---|---|---|---|---|---|---|---|\n")
			}
			fmt.Fprintf(&b, "| %s |", name)
			for _, f := range []func(sample) float64{rate, p50, p99, cpuMillis, mebi, func(s sample) float64 { return float64(s.processes) }, refusals, written} {
				v, _ := r.median(sc, name, f)
				b.WriteString(" " + figure(v) + " |")
			}
			b.WriteString("\n")
		}
		if title {
			b.WriteString("\n")
		}
	}
	return b.String()
}

// figure prints three significant digits, and nothing of what is not known.
func figure(v float64) string {
	switch {
	case v == 0:
		return ""
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// circumstances says what was measured, and on what.
func (o options) circumstances() string {
	first := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			return "unknown"
		}
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line
	}
	fact := func(file, word string) string {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, word); ok && strings.TrimSpace(name) == "" {
				return strings.Trim(strings.TrimSpace(strings.TrimLeft(value, " \t:=")), `"`)
			}
		}
		return "unknown"
	}
	version := func(pkg string) string { return first("dpkg-query", "-W", "-f=${Version}", pkg) }
	var b strings.Builder
	fmt.Fprintf(&b, "* %s, medians of %d rounds of %v each\n", time.Now().UTC().Format("2006-01-02"), o.rounds, o.measure)
	fmt.Fprintf(&b, "* %s, %d processors, %s of memory, %s, Linux %s\n",
		fact("/proc/cpuinfo", "model name"), runtime.NumCPU(), fact("/proc/meminfo", "MemTotal"), fact("/etc/os-release", "PRETTY_NAME"), first("uname", "-r"))
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Fprintf(&b, "* load average at the end %.14s; what else ran on the machine is in it\n", load)
	commit := first("git", "describe", "--always", "--tags", "--dirty")
	if o.lmtpd != "" {
		commit = o.lmtpd
	}
	if o.protocol {
		fmt.Fprintf(&b, "* protocol at %s, %s; go-smtp v0.25.1; aiosmtpd %s\n", commit, runtime.Version(), version("python3-aiosmtpd"))
	} else {
		fmt.Fprintf(&b, "* lmtpd at %s, %s; Dovecot %s; Postfix %s\n", commit, runtime.Version(), version("dovecot-lmtpd"), version("postfix"))
	}
	return b.String()
}
