package main

import (
	"bytes"
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// walk compares every expression with the types and returns data without those that
// do not fit; its lines keep their numbers.
func (d *document) walk() []byte {
	type span struct {
		line int // where the expression begins
		good bool
	}
	var spans []span
	d.parser.Reset(d.data)
	for d.parser.NextExpression() {
		e := d.parser.Expression()
		var s span
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			s.line = d.lineOf(firstKey(e))
			s.good = d.header(e)
		case unstable.KeyValue:
			s.line = d.lineOf(firstKey(e))
			s.good = d.typ != nil && d.keyValue(d.typ, d.path, e)
		default:
			continue
		}
		spans = append(spans, s)
	}
	// An expression reaches from its line to the one before the next: TOML lets no
	// two share a line.
	lines := bytes.SplitAfter(d.data, []byte("\n"))
	for i, s := range spans {
		end := len(lines)
		if i+1 < len(spans) {
			end = spans[i+1].line - 1
		}
		for n := s.line - 1; n < end && !s.good; n++ {
			lines[n] = []byte("\n")
		}
	}
	return bytes.Join(lines, nil)
}

// header follows [table] or [[table]] and reports whether it may be decoded.
func (d *document) header(e *unstable.Node) bool {
	typ, path := d.root, ""
	d.typ, d.path = nil, ""
	for it := e.Key(); it.Next(); {
		line := d.lineOf(it.Node())
		name := string(it.Node().Data)
		f, ok := fieldByKey(typ, name)
		if !ok {
			d.unknown(typ, path, name, line, "unknown table")
			return false
		}
		path = joinKey(path, name)
		isList := e.Kind == unstable.ArrayTable && it.IsLast()
		switch {
		case isTable(f.Type) && !isList:
			typ = f.Type
		case isTableList(f.Type) && isList:
			path = d.entry(path, line)
			typ = f.Type.Elem()
		case isTable(f.Type):
			d.reportAt(line, path, "is one table, not a list", "write ["+path+"]")
			return false
		case isTableList(f.Type):
			d.reportAt(line, path, "is a list of tables", "write [["+path+"]] for each entry")
			return false
		default:
			d.reportAt(line, path, "is a key, not a table", "write "+withoutIndexes(path)+" = "+f.Tag.Get("example"))
			return false
		}
		if _, seen := d.lines[path]; !seen {
			d.lines[path] = line
		}
	}
	d.typ, d.path = typ, path
	return true
}

// entry counts one more entry of the list and returns its path.
func (d *document) entry(list string, line int) string {
	if _, seen := d.lines[list]; !seen {
		d.lines[list] = line
	}
	path := fmt.Sprintf("%s[%d]", list, d.counts[list])
	d.counts[list]++
	d.lines[path] = line
	return path
}

// keyValue compares "key = value" in the table typ at path, and reports whether it may
// be decoded.
func (d *document) keyValue(typ reflect.Type, path string, kv *unstable.Node) bool {
	for it := kv.Key(); it.Next(); {
		line := d.lineOf(it.Node())
		name := string(it.Node().Data)
		f, ok := fieldByKey(typ, name)
		if !ok {
			d.unknown(typ, path, name, line, "unknown key")
			return false
		}
		path = joinKey(path, name)
		if _, seen := d.lines[path]; !seen {
			d.lines[path] = line
		}
		switch {
		case it.IsLast():
			return d.value(f, path, kv.Value(), line)
		case isTable(f.Type):
			typ = f.Type
		case isTableList(f.Type):
			d.reportAt(line, path, "is a list of tables", "write [["+path+"]] for each entry")
			return false
		default:
			d.reportAt(line, path, "is a key, not a table", "write "+withoutIndexes(path)+" = "+f.Tag.Get("example"))
			return false
		}
	}
	return false
}

// value compares a value with the field it is for.
func (d *document) value(f reflect.StructField, path string, v *unstable.Node, line int) bool {
	mismatch := func(expected string) bool {
		d.reportAt(line, path, "expected "+expected+", got "+kindName(v.Kind), "write "+lastKey(path)+" = "+f.Tag.Get("example"))
		return false
	}
	if u, ok := reflect.New(f.Type).Interface().(encoding.TextUnmarshaler); ok {
		expected, number := "text", false
		if k, ok := u.(interface{ kind() (string, bool) }); ok {
			expected, number = k.kind()
		}
		if v.Kind != unstable.String && !(number && v.Kind == unstable.Integer) {
			return mismatch(expected)
		}
		if err := u.UnmarshalText(v.Data); err != nil {
			d.reportValue(path, err)
			return false
		}
		return true
	}
	switch {
	case isTable(f.Type):
		if v.Kind != unstable.InlineTable {
			d.reportAt(line, path, "expected a table, got "+kindName(v.Kind), "write ["+path+"] and its keys below")
			return false
		}
		return d.inlineTable(f.Type, path, v)
	case isTableList(f.Type):
		return d.inlineList(f.Type.Elem(), path, v, line)
	case f.Type.Kind() == reflect.String:
		return v.Kind == unstable.String || mismatch("text")
	case f.Type.Kind() == reflect.Bool:
		return v.Kind == unstable.Bool || mismatch("true or false")
	case f.Type.Kind() == reflect.Slice:
		expected, element := "a list of texts", unstable.String
		if f.Type.Elem().Kind() == reflect.Int {
			expected, element = "a list of whole numbers", unstable.Integer
		}
		if v.Kind != unstable.Array {
			return mismatch(expected)
		}
		for it := v.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			if v = it.Node(); v.Kind != element || element == unstable.Integer && !fits(string(v.Data), reflect.Int) {
				return mismatch(expected)
			}
		}
		return true
	default:
		if v.Kind != unstable.Integer {
			return mismatch("a whole number")
		}
		// As go-toml would find it, but with an error that has a remedy.
		if !fits(string(v.Data), f.Type.Kind()) {
			d.reportAt(line, path, string(v.Data)+" is out of range", "write "+lastKey(path)+" = "+f.Tag.Get("example"))
			return false
		}
		return true
	}
}

// fits reports whether a TOML integer can be held by a field of that kind; more than 32
// bits are needed by none.
func fits(integer string, kind reflect.Kind) bool {
	integer = strings.ReplaceAll(integer, "_", "")
	var err error
	if kind == reflect.Uint32 {
		_, err = strconv.ParseUint(strings.TrimPrefix(integer, "+"), 0, 32)
	} else {
		_, err = strconv.ParseInt(integer, 0, 32)
	}
	return err == nil
}

func (d *document) inlineTable(typ reflect.Type, path string, v *unstable.Node) bool {
	good := true
	for it := v.Children(); it.Next(); {
		if it.Node().Kind == unstable.KeyValue {
			good = d.keyValue(typ, path, it.Node()) && good
		}
	}
	return good
}

func (d *document) inlineList(typ reflect.Type, path string, v *unstable.Node, line int) bool {
	mismatch := func(kind unstable.Kind) bool {
		d.reportAt(line, path, "expected a list of tables, got "+kindName(kind), "write [["+path+"]] for each entry")
		return false
	}
	if v.Kind != unstable.Array {
		return mismatch(v.Kind)
	}
	good := true
	for it := v.Children(); it.Next(); {
		switch it.Node().Kind {
		case unstable.Comment:
		case unstable.InlineTable:
			good = d.inlineTable(typ, d.entry(path, line), it.Node()) && good
		default:
			return mismatch(it.Node().Kind)
		}
	}
	return good
}
