package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// configError is one fault of the configuration, or of the machine it is for.
type configError struct {
	File    string
	Line    int    // 0: the file as a whole
	Key     string // dotted, without the number of a list entry; "" if no key is at fault
	Problem string // what is wrong
	Remedy  string // what to do about it
	Warning bool   // lmtpd can start all the same
}

// Error is "FILE:LINE: KEY: PROBLEM; REMEDY" without the parts that are not known.
func (e *configError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			b.WriteString(":" + strconv.Itoa(e.Line))
		}
		b.WriteString(": ")
	}
	if e.Warning {
		b.WriteString("warning: ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// configErrors are several faults, one line each.
type configErrors []*configError

func (l configErrors) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes each fault visible to errors.As.
func (l configErrors) Unwrap() []error {
	errs := make([]error, len(l))
	for i, e := range l {
		errs[i] = e
	}
	return errs
}

// fatal reports whether one of them keeps lmtpd from starting.
func (l configErrors) fatal() bool {
	return slices.ContainsFunc(l, func(e *configError) bool { return !e.Warning })
}

// capped leaves out what nobody would read: a file that is no configuration at all has
// a fault in each line.
func (l configErrors) capped() configErrors {
	const most = 50
	if len(l) <= most {
		return l
	}
	rest := &configError{File: l[most].File, Line: l[most].Line, Problem: strconv.Itoa(len(l)-most) + " more faults from here on"}
	return append(l[:most:most], rest)
}

func (l configErrors) sort() {
	slices.SortStableFunc(l, func(a, b *configError) int { return cmp.Compare(a.Line, b.Line) })
}

// valueError is what a value's UnmarshalText returns: the fault and the remedy apart.
type valueError struct{ problem, remedy string }

func (e *valueError) Error() string { return e.problem + "; " + e.remedy }

// quoted shows s from a file: on one line, without control octets and not endless.
func quoted(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.QuoteToGraphic(s[:most]) + "..."
	}
	return strconv.QuoteToGraphic(s)
}
