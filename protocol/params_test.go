package protocol

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "00001": 1, "33554432": 33554432,
		"9223372036854775807": math.MaxInt64, "9223372036854775808": math.MaxInt64, "99999999999999999999": math.MaxInt64,
	} {
		if n, ok := parseSize(s); !ok || n != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", s, n, ok, want)
		}
	}
	for _, s := range []string{"", "x", "-1", "+1", " 1", "1 ", "0x1", "100000000000000000000"} {
		if n, ok := parseSize(s); ok {
			t.Errorf("parseSize(%q) = %d, want an error", s, n)
		}
	}
}

func TestParseORcpt(t *testing.T) {
	for s, want := range map[string]string{
		"rfc822;b@example.org":          "b@example.org",
		"RFC822;b+2Bx@example.org":      "b+x@example.org",
		"utf-8;j\u00fcrgen@example.org": "j\u00fcrgen@example.org",
		"x400;c=de":                     "x400;c=de",
	} {
		if got, ok := parseORcpt(s); !ok || got != want {
			t.Errorf("parseORcpt(%q) = %q, %v, want %q", s, got, ok, want)
		}
	}
}

func FuzzParams(f *testing.F) {
	for _, s := range []string{
		" SIZE=10 BODY=8BITMIME SMTPUTF8", "\tA=b\t C", " =", " A=", " A==", " -A", " ORCPT=rfc822;a+2Bb", " ORCPT=rfc822;+0D+0A",
		" RRVS=2014-04-03T23:01:00.5-01:00;R",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for rest := s; ; {
			before := len(rest)
			p, after, ok := cutParam(rest)
			if !ok {
				return
			}
			if p.Key == "" {
				if strings.Trim(rest, " \t") != "" {
					t.Fatalf("%q: %q passed over", s, rest)
				}
				return
			}
			if len(after) >= before {
				t.Fatalf("%q: no progress at %q", s, rest)
			}
			if p.Key != strings.ToUpper(p.Key) || strings.ContainsAny(p.Key+p.Value, " \t") || strings.Contains(p.Key, "=") || p.HasValue != (p.Value != "") {
				t.Fatalf("%q: parameter %+v", s, p)
			}
			if addr, ok := parseORcpt(p.Value); ok && (addr == "" || strings.ContainsFunc(addr, func(r rune) bool { return r < ' ' || r == 0x7f })) {
				t.Fatalf("%q: ORCPT %q", s, addr)
			}
			if v, ok := parseRRVS(p.Value); ok && v.Time.IsZero() {
				t.Fatalf("%q: RRVS %+v", s, v)
			}
			rest = after
		}
	})
}
