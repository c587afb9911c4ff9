package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// unknown reports a key or table that typ, the table at path, does not have.
func (d *document) unknown(typ reflect.Type, path, name string, line int, problem string) {
	d.reportAt(line, joinKey(path, name), problem, unknownRemedy(d.root, typ, withoutIndexes(path), name))
}

// unknownRemedy names the key that was probably meant: one of the same table, else one
// of the same name in another table, else the list of what there is.
func unknownRemedy(root, typ reflect.Type, path, name string) string {
	own := keysOf(typ)
	meant := nearest(strings.ToLower(name), own)
	if meant != "" && editDistance(strings.ToLower(name), meant) <= 1 {
		return didYouMean(typ, path, meant)
	}
	all := allKeys("", root)
	leaves := make([]string, len(all))
	for i, key := range all {
		leaves[i] = lastKey(key)
	}
	if i := slices.Index(leaves, name); i >= 0 {
		return elsewhere(root, all[i])
	}
	if meant != "" {
		return didYouMean(typ, path, meant)
	}
	if leaf := nearest(strings.ToLower(name), leaves); leaf != "" {
		return elsewhere(root, all[slices.Index(leaves, leaf)])
	}
	if key := nearest(name, all); key != "" { // a dotted key in quotes
		return "did you mean " + key + "?"
	}
	return "known here: " + strings.Join(own, ", ")
}

// elsewhere says where key belongs.
func elsewhere(root reflect.Type, key string) string {
	table, _, below := strings.Cut(key, ".")
	if !below {
		return "did you mean " + key + ", above the first table?"
	}
	if f, _ := fieldByKey(root, table); isTableList(f.Type) {
		table = "[" + table + "]"
	}
	return "did you mean " + key + " (below [" + table + "])?"
}

// didYouMean writes key, of the table typ at path, as it stands in a file.
func didYouMean(typ reflect.Type, path, key string) string {
	f, _ := fieldByKey(typ, key)
	full := joinKey(path, key)
	switch {
	case isTable(f.Type):
		full = "[" + full + "]"
	case isTableList(f.Type):
		full = "[[" + full + "]]"
	}
	return "did you mean " + full + "?"
}

// fieldByKey is the field of the struct typ for a key; upper and lower case differ, as
// in TOML.
func fieldByKey(typ reflect.Type, key string) (reflect.StructField, bool) {
	for i := range typ.NumField() {
		if f := typ.Field(i); key != "" && f.Tag.Get("toml") == key {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// keysOf lists the keys of one table in the order of the struct.
func keysOf(typ reflect.Type) []string {
	var keys []string
	for i := range typ.NumField() {
		if key := typ.Field(i).Tag.Get("toml"); key != "" {
			keys = append(keys, key)
		}
	}
	return keys
}

// allKeys lists the keys of a table and of those below it, dotted, without the tables
// themselves.
func allKeys(path string, typ reflect.Type) []string {
	var keys []string
	for _, key := range keysOf(typ) {
		f, _ := fieldByKey(typ, key)
		switch {
		case isTable(f.Type):
			keys = append(keys, allKeys(joinKey(path, key), f.Type)...)
		case isTableList(f.Type):
			keys = append(keys, allKeys(joinKey(path, key), f.Type.Elem())...)
		default:
			keys = append(keys, joinKey(path, key))
		}
	}
	return keys
}

// isTable reports whether values of typ are written as a table: socketAddress is a
// struct too, but has no keys.
func isTable(typ reflect.Type) bool {
	return typ.Kind() == reflect.Struct && len(keysOf(typ)) > 0
}

func isTableList(typ reflect.Type) bool {
	return typ.Kind() == reflect.Slice && isTable(typ.Elem())
}

func joinKey(path, name string) string {
	if !bareKey.MatchString(name) {
		name = quoted(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

var (
	bareKey   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	listIndex = regexp.MustCompile(`\[[0-9]+\]`)
)

// withoutIndexes is key as a person writes it: "listen.mode" for "listen[0].mode".
func withoutIndexes(key string) string { return listIndex.ReplaceAllString(key, "") }

func lastKey(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func firstKey(e *unstable.Node) *unstable.Node {
	it := e.Key()
	it.Next()
	return it.Node()
}

func (d *document) lineOf(key *unstable.Node) int { return d.lineAt(int(key.Raw.Offset)) }

// kindName is a kind of value in words.
func kindName(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "text"
	case unstable.Bool:
		return "true or false"
	case unstable.Integer:
		return "a whole number"
	case unstable.Float:
		return "a number with a fraction"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	default:
		return "a date or a time"
	}
}
