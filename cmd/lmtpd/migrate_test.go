package main

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The keys of ours that pages other than lmtpd.toml(5) name exist.
func TestManNamesRealKeys(t *testing.T) {
	keys := allKeys("", reflect.TypeFor[config]())
	for page, least := range map[string]int{"lmtpd-migrate.7": 60, "lmtpd-troubleshooting.7": 0} {
		named := 0
		for _, m := range regexp.MustCompile(`(?m)^\.Ic ([a-z_]+\.)?([a-z_]+)( |$)`).FindAllStringSubmatch(readPage(t, page), -1) {
			key := m[1] + m[2]
			// The other page names keys without their table too.
			if !slices.Contains(keys, key) && (least > 0 || !slices.ContainsFunc(keys, func(k string) bool { return strings.HasSuffix(k, "."+key) })) {
				t.Errorf("%s: %s is no key", page, key)
			}
			named++
		}
		if named < least {
			t.Errorf("%s names %d keys", page, named)
		}
	}
}
