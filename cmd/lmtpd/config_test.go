package main

import (
	"reflect"
	"testing"
)

func TestEmptyConfigIsTheDefaults(t *testing.T) {
	c, err := parseConfig("empty.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Hostname == "" {
		t.Error("no host name")
	}
	want := defaultConfig()
	c.doc, c.Hostname = nil, ""
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}
