package userdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

// listed are the addresses and errors of a Lister.
func listed(t *testing.T, l Lister) (addresses []string, errs []error) {
	t.Helper()
	for a, err := range l.List(t.Context()) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		addresses = append(addresses, a.String())
	}
	slices.Sort(addresses)
	return addresses, errs
}

// few lists what it holds.
type few struct {
	Any
	all []Address
}

func (f few) List(context.Context) iter.Seq2[Address, error] {
	return func(yield func(Address, error) bool) {
		for _, a := range f.all {
			if !yield(a, nil) {
				return
			}
		}
	}
}

// The domains of an entry bound what is listed, and complete it.
func TestChainLists(t *testing.T) {
	db := few{all: []Address{{Local: "ann"}, {Local: "bob", Domain: "b.example"}, {Local: "eve", Domain: "else.example"}}}
	chain := Chain{{Database: db, Domains: []string{"a.example", "b.example", ""}}, {Database: Any{}}, {Database: &Cache{Database: db}}}
	addresses, errs := listed(t, chain)
	if want := []string{"ann", "ann", "ann@a.example", "ann@b.example", "bob@b.example", "bob@b.example", "eve@else.example"}; !slices.Equal(addresses, want) {
		t.Errorf("%q, want %q", addresses, want)
	}
	if len(errs) != 1 || !errors.Is(errs[0], ErrNotListed) || !strings.Contains(errs[0].Error(), "any: ") {
		t.Error(errs)
	}
	n := 0
	for range chain.List(t.Context()) {
		if n++; n == 5 {
			break
		}
	}
}

func TestPasswdFileLists(t *testing.T) {
	path := place(t, "users", "ann@a.example::::::\nbob::::::\noff:::::::userdb_disabled=yes\n", 0o600)
	p, err := NewPasswdFile(path, PasswdFileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if addresses, errs := listed(t, p); !slices.Equal(addresses, []string{"ann@a.example", "bob"}) || errs != nil {
		t.Errorf("%q, %v", addresses, errs)
	}
}

const somePasswd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nlow:x:999:999::/:/bin/sh\n+nis::::::\nbroken:x\n" +
	"nobody:x:65534:65534::/:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n"

// Accounts that get mail are listed, from wherever they come.
func TestSystemLists(t *testing.T) {
	want := []string{"ann", "bob"}
	files := noGetent(t, place(t, "passwd", somePasswd, 0o600), nowhere(t))
	if addresses, errs := listed(t, files); !slices.Equal(addresses, want) || errs != nil {
		t.Errorf("%q, %v", addresses, errs)
	}
	getent := scripted(t, `[ $# -eq 1 ] && [ "$1" = passwd ] && cat <<'END'
`+somePasswd+`END`)
	getent.NSSwitch = place(t, "nsswitch.conf", "passwd: files\n", 0o600)
	if addresses, errs := listed(t, getent); !slices.Equal(addresses, want) || errs != nil {
		t.Errorf("%q, %v", addresses, errs)
	}
	getent.NSSwitch = place(t, "nsswitch.conf", "passwd: files sss\n", 0o600)
	addresses, errs := listed(t, getent)
	if !slices.Equal(addresses, want) || len(errs) != 1 || !errors.Is(errs[0], ErrNotListed) || !strings.Contains(errs[0].Error(), "sss") {
		t.Errorf("%q, %v", addresses, errs)
	}
	if _, errs := listed(t, scripted(t, "exit 1")); len(errs) != 1 || errors.Is(errs[0], ErrNotListed) {
		t.Error(errs)
	}
	many := scripted(t, "i=1000; while [ $i -lt 9000 ]; do echo \"a-name-of-some-length-$i:x:$i:$i:some words:/home/someone:/bin/sh\"; i=$((i+1)); done")
	many.NSSwitch = getent.NSSwitch
	if addresses, _ := listed(t, many); len(addresses) != 8000 {
		t.Errorf("%d of 8000", len(addresses))
	}
}

func TestUserdbdLists(t *testing.T) {
	s := fakeUserdbd(t, func(method, name string) string {
		if method != "GetUserRecord" || name != "" {
			return varlinkNone
		}
		var all []string
		for i, uid := range []int{0, 1000, 1001} {
			all = append(all, fmt.Sprintf(`{"parameters":{"record":{"userName":"u%d","uid":%d,"gid":%d}},"continues":%t}`, i, uid, uid, i < 2))
		}
		return strings.Join(all, "\x00") + "\x00"
	})
	if addresses, errs := listed(t, s); !slices.Equal(addresses, []string{"u1", "u2"}) || errs != nil {
		t.Errorf("%q, %v", addresses, errs)
	}
}
