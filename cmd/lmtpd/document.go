package main

import (
	"bytes"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is a configuration file compared with the structure it is for: the line of
// each key, and every fault found so far.
//
// go-toml stops at the first value that it cannot decode. Therefore the syntax tree is
// walked first, each key and value compared with the Go type it is for, and what does
// not fit is reported and blanked out; go-toml decodes the rest.
type document struct {
	file  string
	lines map[string]int // key with list indexes ("listen[0].mode") to line
	errs  configErrors
	wrong map[string]bool // the keys in errs

	data   []byte
	starts []int // offset of each line
	parser unstable.Parser
	counts map[string]int // entries of each list so far
	path   string         // of the table that the last header opened
	root   reflect.Type   // of the whole file
	typ    reflect.Type   // of that table; nil: it is not known
}

// readDocument decodes data into target, a pointer to a struct whose toml tags are the
// keys; values that are faulty are left as they were.
func readDocument(file string, data []byte, target any) *document {
	d := &document{
		file:   file,
		lines:  map[string]int{},
		wrong:  map[string]bool{},
		data:   bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")),
		counts: map[string]int{},
		root:   reflect.TypeOf(target).Elem(),
	}
	d.typ = d.root
	d.starts = lineStarts(d.data)
	defer func() { d.data, d.starts, d.parser = nil, nil, unstable.Parser{} }() // only lines are asked for later
	good := d.walk()
	if d.syntax() {
		return d // what would be decoded is cut off somewhere
	}
	dec := toml.NewDecoder(bytes.NewReader(good)).DisallowUnknownFields()
	if err := dec.Decode(target); err != nil {
		d.decodeError(err)
	}
	return d
}

// has reports whether the file sets key (with list indexes), rightly or wrongly.
func (d *document) has(key string) bool { _, ok := d.lines[key]; return ok }

// line is where key is set, or else the table it would be in; 0 if that is not there.
func (d *document) line(key string) int {
	if d == nil {
		return 0
	}
	for key != "" {
		if n, ok := d.lines[key]; ok {
			return n
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 0
}

// report adds a fault of key unless that key has one already.
func (d *document) report(key, problem, remedy string) {
	if d.wrong[key] {
		return
	}
	d.reportAt(d.line(key), key, problem, remedy)
}

func (d *document) reportAt(line int, key, problem, remedy string) {
	d.wrong[key] = true
	d.errs = append(d.errs, d.fault(line, key, problem, remedy))
}

// fault is without a place for a configuration that was not read from a file.
func (d *document) fault(line int, key, problem, remedy string) *configError {
	if d == nil {
		return &configError{Key: withoutIndexes(key), Problem: problem, Remedy: remedy}
	}
	return &configError{File: d.file, Line: line, Key: withoutIndexes(key), Problem: problem, Remedy: remedy}
}

// reportValue adds what a check of a value returned.
func (d *document) reportValue(key string, err error) {
	var v *valueError
	switch {
	case err == nil:
	case errors.As(err, &v):
		d.report(key, v.problem, v.remedy)
	default:
		d.report(key, err.Error(), "")
	}
}

// syntax reports where the text stops being TOML; what stands below is not looked at.
func (d *document) syntax() bool {
	err := d.parser.Error()
	var perr *unstable.ParserError
	if !errors.As(err, &perr) {
		if err != nil {
			d.reportAt(0, "", err.Error(), "")
		}
		return err != nil
	}
	line := d.lineAt(int(d.parser.Range(perr.Highlight).Offset))
	d.errs = append(d.errs, d.fault(line, "", "not TOML: "+perr.Message, syntaxRemedy(d.text(line))))
	return true
}

var (
	noValue  = regexp.MustCompile(`^\s*([A-Za-z_]+)\s*=\s*(#.*)?$`)
	bareMode = regexp.MustCompile(`^\s*"?mode"?\s*=\s*(0[0-7]+)`)
	bareText = regexp.MustCompile(`^\s*([A-Za-z_]+)\s*=\s*([^\s"'\[{#][^"'#]*?)\s*(#.*)?$`)
)

// syntaxRemedy guesses from the line what was meant.
func syntaxRemedy(line string) string {
	if m := noValue.FindStringSubmatch(line); m != nil {
		return "write a value after " + m[1] + " ="
	}
	if m := bareMode.FindStringSubmatch(line); m != nil {
		return `write the mode in quotes: mode = "` + m[1] + `"`
	}
	if m := bareText.FindStringSubmatch(line); m != nil && len(line) < 200 {
		return "write text in quotes: " + m[1] + " = " + quoted(m[2])
	}
	return "see lmtpd.toml(5) for how the file is written"
}

// decodeError reports what only go-toml sees: a key that is there twice, and the like.
func (d *document) decodeError(err error) {
	var (
		missing *toml.StrictMissingError
		decode  *toml.DecodeError
	)
	switch {
	case errors.As(err, &missing):
		for i := range missing.Errors {
			d.decodeError(&missing.Errors[i])
		}
	case errors.As(err, &decode):
		line, _ := decode.Position()
		key := strings.Join(decode.Key(), ".")
		problem := strings.TrimPrefix(decode.Error(), "toml: ")
		d.errs = append(d.errs, d.fault(line, key, problem, "remove or correct this line"))
	default:
		d.errs = append(d.errs, d.fault(0, "", strings.TrimPrefix(err.Error(), "toml: "), ""))
	}
}

// lineAt is the number of the line that holds the octet at offset.
func (d *document) lineAt(offset int) int {
	i, found := slices.BinarySearch(d.starts, offset)
	if found {
		i++
	}
	return max(i, 1)
}

// text is the line with that number.
func (d *document) text(line int) string {
	rest := d.data[d.starts[line-1]:]
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		rest = rest[:end]
	}
	return strings.TrimRight(string(rest), "\r")
}

// lineStarts are the offsets at which the lines of data begin.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, b := range data {
		if b == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
