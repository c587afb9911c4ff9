package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// fill gives every field of a struct a value of its own, so that one which is added
// and does not travel is noticed.
func fill(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(t, v.Field(i), n)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for i := range 3 {
			fill(t, v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d\n\xff", *n))
	case reflect.Int64, reflect.Int:
		v.SetInt(int64(*n) << 33)
	case reflect.Uint32:
		v.SetUint(uint64(*n) << 22)
	case reflect.Uint8:
		v.SetUint(uint64(*n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Interface: // Err and Warning of a Result
	default:
		t.Fatalf("no value for a field of type %v", v.Type())
	}
}

// one returns the payload of the only frame in b.
func one(t testing.TB, b []byte) []byte {
	t.Helper()
	var payload []byte
	if err := frames(append(newPacket(nil), b...), func(_ byte, p []byte) error {
		payload = p
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestTargetTravelsWhole(t *testing.T) {
	var want maildir.Target
	fill(t, reflect.ValueOf(&want).Elem(), new(int))
	for _, want := range []maildir.Target{want, {Root: "/r"}, {Owner: &maildir.Owner{UID: 1, GID: 2}, Root: "/r"}} {
		b := appendTarget(nil, &want)
		if len(b) != targetSize(&want) {
			t.Errorf("frame of %d octets, targetSize says %d", len(b), targetSize(&want))
		}
		got, err := decodeTarget(one(t, b))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v (%v)\nwant %+v", got, err, want)
		}
	}
}

func TestResultTravelsWhole(t *testing.T) {
	var want maildir.Result
	fill(t, reflect.ValueOf(&want).Elem(), new(int))
	i, got, err := decodeResult(one(t, appendResult(nil, 7, &want)))
	if err != nil || i != 7 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d: got %+v (%v)\nwant %+v", i, got, err, want)
	}
}

func TestErrorsTravelTyped(t *testing.T) {
	var all maildir.Error
	fill(t, reflect.ValueOf(&all).Elem(), new(int))
	for _, cause := range append(causes[:], syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.ELOOP,
		&maildir.QuotaError{
			Cause: maildir.ErrQuota, Usage: maildir.Usage{Octets: 5, Messages: 6},
			Limit: maildir.Quota{Octets: 7, Messages: 8}, Since: time.UnixMicro(1_700_000_000_000_001),
		},
		&maildir.QuotaError{Cause: maildir.ErrQuotaSize, Limit: maildir.Quota{Octets: 7}},
		fmt.Errorf("%w: %w", maildir.ErrRoot, syscall.ENOENT), errors.New("else")) {
		want := all
		want.Err = cause
		_, r, err := decodeResult(one(t, appendResult(nil, 0, &maildir.Result{Err: fmt.Errorf("around: %w", &want)})))
		if err != nil {
			t.Fatal(err)
		}
		var got *maildir.Error
		if !errors.As(r.Err, &got) {
			t.Fatalf("%v: not a *maildir.Error: %v", cause, r.Err)
		}
		_, warned, err := decodeResult(one(t, appendResult(nil, 0, &maildir.Result{Warning: &want})))
		if err != nil || warned.Err != nil || warned.Warning == nil || warned.Warning.Error() != want.Error() {
			t.Errorf("%+v (%v)", warned, err)
		}
		var q, wantQ *maildir.QuotaError
		if errors.As(cause, &wantQ) && (!errors.As(got, &q) || !reflect.DeepEqual(q, wantQ)) {
			t.Errorf("figures are %+v, want %+v", q, wantQ)
		}
		if got.Err.Error() != cause.Error() || got.Error() != want.Error() {
			t.Errorf("text is %q, want %q", got, want.Error())
		}
		for _, is := range append(causes[:], syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.ELOOP, syscall.ENOENT,
			fs.ErrPermission, fs.ErrNotExist) {
			if errors.Is(got, is) != errors.Is(&want, is) {
				t.Errorf("%v: errors.Is(%v) is %t", cause, is, errors.Is(got, is))
			}
		}
		got.Err, want.Err = nil, nil
		if *got != want {
			t.Errorf("got %+v, want %+v", *got, want)
		}
	}
}

// What the writer has to say is cut and never a reason to say nothing.
func TestResultIsCut(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	b := appendResult(newPacket(nil), 0, &maildir.Result{
		File: long, Folder: long, Size: -1, Open: -time.Second,
		Err: &maildir.Error{Op: long, Path: long, Missing: long, Err: errors.New(long)},
	})
	if len(b) > maxPacket {
		t.Errorf("%d octets", len(b))
	}
	_, r, err := decodeResult(one(t, b[headSize:]))
	if err != nil || r.Err == nil || r.Size != 0 {
		t.Errorf("%v, %v", r.Err, err)
	}
	if b := appendRefused(newPacket(nil), long); len(b) > maxPacket {
		t.Errorf("%d octets", len(b))
	}
}

func TestOtherVersion(t *testing.T) {
	p := newPacket(nil)
	p[len(magic)] = 9
	q := begin{targets: 1}
	err := newRequest().take(q.append(p), -1)
	if err == nil || !strings.Contains(err.Error(), "version 9") || !strings.Contains(err.Error(), "restart both") {
		t.Errorf("error is %v", err)
	}
	// A refusal is understood in every version.
	p = appendRefused(p, "because")
	err = frames(p, func(kind byte, payload []byte) error { return refused(payload) })
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "because") {
		t.Errorf("error is %v", err)
	}
}

// The largest target that is taken fits into a packet, the next larger one is refused.
func TestTargetLimits(t *testing.T) {
	largest := maildir.Target{
		Owner: &maildir.Owner{UID: 1, GID: 1, Groups: make([]uint32, maxGroups)},
		Root:  strings.Repeat("r", maxPath), Path: strings.Repeat("p", maxPath), Folder: strings.Repeat("f", maxFolder),
		Account: strings.Repeat("a", maxAccount), Token: strings.Repeat("t", maxToken), Flags: strings.Repeat("S", maxFlags),
		Quota: &maildir.Quota{Ignore: slices.Repeat([]string{strings.Repeat("q", 252)}, maxIgnored/256)}, Header: bytes.Repeat([]byte("h"), maxHeader),
	}
	b := newPacket(nil)
	q := begin{targets: 1}
	if b = appendTarget(q.append(b), &largest); len(b) > maxPacket {
		t.Errorf("%d octets do not fit into a packet", len(b))
	}
	if err := checkTarget(&largest); err != nil {
		t.Error(err)
	}
	if _, err := decodeTarget(one(t, appendTarget(nil, &largest))); err != nil {
		t.Error(err)
	}
	for _, grow := range []func(*maildir.Target){
		func(t *maildir.Target) { t.Root += "x" }, func(t *maildir.Target) { t.Path += "x" },
		func(t *maildir.Target) { t.Folder += "x" }, func(t *maildir.Target) { t.Account += "x" },
		func(t *maildir.Target) { t.Token += "x" }, func(t *maildir.Target) { t.Flags += "x" },
		func(t *maildir.Target) {
			t.Quota = &maildir.Quota{Ignore: append(t.Quota.Ignore, ".")}
		},
		func(t *maildir.Target) { t.Quota = &maildir.Quota{Octets: -1} },
		func(t *maildir.Target) { t.Header = append(t.Header, 'x') },
		func(t *maildir.Target) {
			t.Owner = &maildir.Owner{UID: 1, GID: 1, Groups: append(t.Owner.Groups, 1)}
		},
		func(t *maildir.Target) { t.Root = "/a\x00b" },
	} {
		c := largest
		grow(&c)
		if checkTarget(&c) == nil {
			t.Error("a target that is too large is sent")
		}
		if _, err := decodeTarget(one(t, appendTarget(nil, &c))); !errors.Is(err, errProtocol) {
			t.Errorf("a target that is too large is taken: %v", err)
		}
	}
}

// whole is a request in one packet.
func whole(t testing.TB, g begin, data string, targets ...maildir.Target) []byte {
	t.Helper()
	b := g.append(newPacket(nil))
	for i := range targets {
		b = appendTarget(b, &targets[i])
	}
	if data != "" {
		start := len(b)
		b = endFrame(append(beginFrame(b, frameData), data...), start)
	}
	if len(b) > maxPacket {
		t.Fatal("too large")
	}
	return b
}

func TestRequestOrder(t *testing.T) {
	a := maildir.Target{Root: "/a"}
	good := whole(t, begin{size: 2, targets: 2}, "ab", a, a)
	r := newRequest()
	if err := r.take(good, -1); err != nil || !r.complete() {
		t.Fatalf("complete %t, %v", r.complete(), err)
	}
	data := endFrame(append(beginFrame(nil, frameData), 'a'), 0)
	for name, packet := range map[string][]byte{
		"not a packet":         []byte("GET / HTTP/1.0\r\n\r\n"),
		"empty":                {},
		"head only":            newPacket(nil),
		"part of a frame head": good[:headSize+3],
		"part of a frame":      good[:len(good)-1],
		"octet too many":       append(bytes.Clone(good), 0),
		"target first":         appendTarget(newPacket(nil), &a),
		"data first":           append(newPacket(nil), data...),
		"cancel first":         append([]byte(cancelPacket), good[headSize:]...),
		"two begins":           append(whole(t, begin{targets: 1}, ""), good[headSize:]...),
		"unknown frame":        endFrame(beginFrame(newPacket(nil), 'Z'), headSize),
		"data before target":   append(whole(t, begin{size: 1, targets: 1}, ""), data...),
		"too many targets":     whole(t, begin{targets: 1}, "", a, a),
		"too much data":        whole(t, begin{size: 2, targets: 1}, "abc", a),
		"empty data":           endFrame(beginFrame(whole(t, begin{size: 2, targets: 1}, "", a), frameData), len(whole(t, begin{size: 2, targets: 1}, "", a))),
		"no target":            whole(t, begin{}, ""),
		"1001 targets":         whole(t, begin{targets: maxTargets + 1}, ""),
		"unknown body":         whole(t, begin{targets: 1, body: 3}, "", a),
		"question with body":   whole(t, begin{targets: 1, size: 1, body: bodyNone}, "a", a),
		"many questions":       whole(t, begin{targets: 2, body: bodyNone}, "", a, a),
		"body too large":       whole(t, begin{targets: 1, size: maxInline + 1}, "", a),
		"more lines":           whole(t, begin{targets: 1, size: 1, lines: 2}, "a", a),
		"negative size":        whole(t, begin{targets: 1, size: -1}, "", a),
		"negative timeout":     whole(t, begin{targets: 1, timeout: -1}, "", a),
		"file without one":     whole(t, begin{targets: 1, size: 1, body: bodyFile}, "", a),
	} {
		if err := newRequest().take(packet, -1); !errors.Is(err, errProtocol) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	fd, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	r = newRequest()
	if err := r.take(good, fd); !errors.Is(err, errProtocol) {
		t.Errorf("descriptor without need: %v", err)
	}
	r.drop()
}

func TestTooManyOctets(t *testing.T) {
	large := maildir.Target{Root: "/a", Header: bytes.Repeat([]byte("h"), maxHeader)}
	r := newRequest()
	err := r.take(whole(t, begin{targets: maxTargets}, ""), -1)
	for n := 0; err == nil; n++ {
		if n > maxTargets {
			t.Fatal("no limit")
		}
		err = r.take(appendTarget(newPacket(nil), &large), -1)
	}
	if !errors.Is(err, errProtocol) {
		t.Error(err)
	}
}

func FuzzRequest(f *testing.F) {
	a := maildir.Target{Root: "/home/bob", Path: "Maildir", Folder: ".lists", Account: "bob@example.org", Header: []byte("Return-Path: <>\n")}
	b := a
	b.Owner = &maildir.Owner{UID: 1001, GID: 1001, Groups: []uint32{5, 6}}
	f.Add(whole(f, begin{timeout: time.Minute, size: 5, lines: 1, targets: 2}, "body\n", a, b))
	f.Add(whole(f, begin{targets: 1}, "", a))
	f.Add([]byte(cancelPacket))
	c := b
	c.Quota, c.MakeFolder, c.Seek, c.Token, c.Flags = &maildir.Quota{Octets: 1 << 30, Grace: true, Ignore: []string{".Trash"}}, true, true, "0a", "S"
	f.Add(whole(f, begin{size: 1 << 30, body: bodyNone, targets: 1}, "", c))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r := newRequest()
		if err := r.take(packet, -1); err != nil {
			if r.complete() && r.body == bodyFile {
				t.Fatal("complete without its descriptor")
			}
			return
		}
		if len(r.all) > int(r.targets) || r.targets > maxTargets || int64(len(r.data)) > r.size || r.body == bodyInline && r.size > maxInline || r.timeout < 0 {
			t.Fatalf("limits are not kept: %+v", r.begin)
		}
		if !r.complete() {
			return
		}
		again := newRequest()
		if err := again.take(whole(t, r.begin, string(r.data), r.all...), -1); err != nil {
			t.Fatalf("not taken again: %v", err)
		}
		if again.begin != r.begin || !bytes.Equal(again.data, r.data) || !reflect.DeepEqual(again.all, r.all) {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	ok := maildir.Result{File: "/home/bob/Maildir/new/1", Folder: ".lists", Size: 7, Write: time.Second}
	bad := maildir.Result{Err: &maildir.Error{Op: maildir.OpWrite, Path: "/x", UID: 5, GID: 6, Missing: "w", Err: fmt.Errorf("%w: %w", maildir.ErrRoot, syscall.ENOENT)}}
	f.Add(appendResult(newPacket(nil), 0, &ok))
	f.Add(appendResult(appendResult(newPacket(nil), 2, &bad), 1, &ok))
	f.Add(appendRefused(newPacket(nil), "no"))
	f.Add(appendResult(newPacket(nil), 0, &maildir.Result{Err: context.DeadlineExceeded}))
	f.Add(appendResult(newPacket(nil), 0, &maildir.Result{Err: io.EOF}))
	f.Fuzz(func(t *testing.T, packet []byte) {
		calls := map[int]int{}
		q := &call{
			client:  &Client{},
			targets: make([]maildir.Target, 3), part: []int{2, 0, 1}, left: 3, answered: make([]bool, 3),
			done: func(i int, r maildir.Result) {
				calls[i]++
				_, again, err := decodeResult(one(t, appendResult(nil, 0, &r)))
				if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", r) {
					t.Fatalf("%+v became %+v (%v)", r, again, err)
				}
			},
		}
		_ = q.packet(packet, -1)
		if len(calls)+q.left != 3 {
			t.Fatalf("%d results and %d left", len(calls), q.left)
		}
		for i, n := range calls {
			if n != 1 || i < 0 || i > 2 {
				t.Fatalf("%d results for target %d", n, i)
			}
		}
	})
}
