package delivery

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// pieces is a body that arrives in the pieces given, as protocol.Body does.
type pieces struct {
	list [][]byte
	err  error // at the end; nil: none
}

func (p *pieces) Read([]byte) (int, error) { panic("a spool writes such a body to itself") }

func (p *pieces) WriteTo(w io.Writer) (n int64, err error) {
	for _, b := range p.list {
		b = bytes.Clone(b)
		k, err := w.Write(b)
		if n += int64(k); err != nil {
			return n, err
		}
		for i := range b {
			b[i] = '!' // the next piece will be here
		}
	}
	return n, p.err
}

// content reads a spooled body and checks what is said about it.
func (sp *spooled) content(t testing.TB) []byte {
	t.Helper()
	data := sp.Data
	if sp.File != nil {
		data = make([]byte, sp.Size)
		if n, err := sp.File.ReadAt(data, 0); n != len(data) || err != nil && err != io.EOF {
			t.Fatalf("read %d of %d octets: %v", n, len(data), err)
		}
		if n, _ := sp.File.ReadAt(make([]byte, 1), sp.Size); n != 0 {
			t.Error("the file is longer than the body")
		}
	}
	if int64(len(data)) != sp.Size {
		t.Errorf("%d octets, and Size is %d", len(data), sp.Size)
	}
	if want := int64(bytes.Count(data, lf) - bytes.Count(data, crlf)); sp.Lines != want {
		t.Errorf("Lines is %d, want %d", sp.Lines, want)
	}
	return bytes.Clone(data)
}

func stateEntries(t testing.TB, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ name, in, lf string }{
		{"empty", "", ""},
		{"lines", "a: b\r\n\r\nc\r\n", "a: b\n\nc\n"},
		{"no final newline", "a: b\r\n\r\nc", "a: b\n\nc"},
		{"bare LF", "\r\na\nb\r\n", "\na\nb\n"},
		{"bare CR", "\r\na\rb\r\r", "\na\rb\r\r"},
		{"CR CR LF", "\r\na\r\r\nb", "\na\r\nb"},
		{"CR at the end", "a: b\r", "a: b\r"},
		{"only CR", "\r", "\r"},
		{"only CR CR", "\r\r", "\r\r"},
		{"NUL and 8-bit", "\r\n\x00\xff\r\n", "\n\x00\xff\n"},
		{"Return-Path", "Return-Path: <x>\r\nA: b\r\n\r\n", "A: b\n\n"},
	} {
		in := []byte(test.in)
		asCRLF := test.in
		if test.name == "Return-Path" {
			asCRLF = "A: b\r\n\r\n"
		}
		for _, memory := range []int64{0, -1, 3} {
			for _, conf := range []Spool{{Dir: dir, Memory: memory}, {Dir: dir, Memory: memory, CRLF: true}} {
				for seed := range uint64(8) {
					list := cut(in, seed)
					if seed == 0 {
						list = [][]byte{in}
					}
					sp, err := conf.take(&pieces{list: list}, 0)
					if err != nil {
						t.Fatalf("%s: %v", test.name, err)
					}
					want := test.lf
					if conf.CRLF {
						want = asCRLF
					}
					if got := sp.content(t); string(got) != want {
						t.Errorf("%s, %+v, seed %d: %q, want %q", test.name, conf, seed, got, want)
					}
					if inFile := sp.Size > 0 && (memory < 0 || memory == 3 && sp.Size > 3); inFile != (sp.File != nil) {
						t.Errorf("%s: %d octets with Memory %d: file %v", test.name, sp.Size, memory, sp.File != nil)
					}
					sp.Close()
				}
			}
		}
	}
	if left := stateEntries(t, dir); len(left) > 0 {
		t.Errorf("left in the state directory: %v", left)
	}
}

// A body of a file that has been begun in memory, written in pieces of every size.
func TestSpoolLarge(t *testing.T) {
	dir := t.TempDir()
	line := []byte("0123456789 a line of a large message\r\n")
	whole := append([]byte("Subject: large\r\n\r\n"), bytes.Repeat(line, 3<<20/len(line))...)
	want := bytes.ReplaceAll(whole, crlf, lf)
	for _, size := range []int{7000, fileChunk - 1, fileChunk, fileChunk + 1, 1 << 20} {
		var list [][]byte
		for p := whole; len(p) > 0; p = p[min(size, len(p)):] {
			list = append(list, p[:min(size, len(p))])
		}
		sp, err := Spool{Dir: dir}.take(&pieces{list: list}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if sp.File == nil || len(stateEntries(t, dir)) != 0 {
			t.Errorf("file %v, state directory %v", sp.File, stateEntries(t, dir))
		}
		if !bytes.Equal(sp.content(t), want) {
			t.Errorf("pieces of %d octets: content differs", size)
		}
		sp.Close()
	}
	// A declared size saves the way through memory, whether it is true or not.
	sp, err := Spool{Dir: dir}.take(&pieces{list: [][]byte{[]byte("A: b\r\n\r\nsmall")}}, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if sp.File == nil || string(sp.content(t)) != "A: b\n\nsmall" {
		t.Error("a small body that was declared large")
	}
	sp.Close()
}

// A reader without WriteTo serves as well.
func TestSpoolPlainReader(t *testing.T) {
	sp, err := Spool{}.take(struct{ io.Reader }{strings.NewReader("A: b\r\n\r\nc\r\n")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sp.Close()
	if got := sp.content(t); string(got) != "A: b\n\nc\n" {
		t.Errorf("got %q", got)
	}
}

// What the client's side does wrong stays as it is; what the state directory does
// wrong is a *spoolError, sorted by what can be done about it.
func TestSpoolErrors(t *testing.T) {
	boom := errors.New("client is gone")
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		conf Spool
		err  error // of the body
		is   error
		full bool
	}{
		{"client", Spool{Dir: dir, Memory: -1}, boom, boom, false},
		{"directory missing", Spool{Dir: filepath.Join(dir, "none"), Memory: -1}, nil, fs.ErrNotExist, false},
		{"a file in its place", Spool{Dir: file, Memory: -1}, nil, syscall.ENOTDIR, false},
		{"no directory set", Spool{Memory: -1}, nil, errSpool, false},
	} {
		sp, err := test.conf.take(&pieces{[][]byte{[]byte("A: b\r\n\r\nc\r\n")}, test.err}, 0)
		if sp != nil || !errors.Is(err, test.is) || errors.Is(err, errSpool) == (test.err != nil) || errors.Is(err, errSpoolFull) != test.full {
			t.Errorf("%s: %v, %v", test.name, sp, err)
		}
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		err := error(&spoolError{&fs.PathError{Op: "write", Path: dir, Err: errno}})
		if got := replyFor(err); got.Code != 452 || got.Enhanced.String() != "4.3.1" {
			t.Errorf("%v: %v", err, got.Error())
		}
		if !strings.Contains(err.Error(), "state directory: ") {
			t.Errorf("%q does not say where", err)
		}
	}
	if got := replyFor(&spoolError{syscall.EACCES}); got.Code != 451 || strings.Contains(got.Text, "ailbox") {
		t.Errorf("EACCES of the spool: %v", got.Error())
	}
}

// Buffers of one message serve the next: what is pooled must not be shared.
func TestSpoolPool(t *testing.T) {
	a, err := Spool{}.take(&pieces{list: [][]byte{[]byte("A: a\r\n\r\naaaa\r\n")}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Spool{}.take(&pieces{list: [][]byte{[]byte("B: b\r\n\r\nbbbb\r\n")}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if string(a.content(t)) != "A: a\n\naaaa\n" || string(b.content(t)) != "B: b\n\nbbbb\n" {
		t.Errorf("%q, %q", a.Data, b.Data)
	}
	a.Close()
	b.Close()
	if a.Data != nil {
		t.Error("a closed body still has its data")
	}
}

// slowConvert is the conversion written for clarity.
func slowConvert(p []byte) (out []byte) {
	for i := 0; i < len(p); i++ {
		if p[i] == '\r' && i+1 < len(p) && p[i+1] == '\n' {
			continue
		}
		out = append(out, p[i])
	}
	return out
}

func FuzzSpool(f *testing.F) {
	f.Add([]byte("\r\na\r\r\n\rb\r"), uint64(1), false)
	f.Add([]byte("A: b\r\n c\r\n\r\n\n\r\n"), uint64(2), true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, body []byte, seed uint64, file bool) {
		conf := Spool{Dir: dir, Memory: 1 << 20}
		if file {
			conf.Memory = 10
		}
		sp, err := conf.take(&pieces{list: cut(body, seed)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer sp.Close()
		want, _, _ := slowHeader(slowConvert(body))
		if got := sp.content(t); !bytes.Equal(got, want) {
			t.Errorf("%q became %q, want %q", body, got, want)
		}
		conf.CRLF = true
		raw, err := conf.take(&pieces{list: cut(body, seed+1)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		want, _, _ = slowHeader(body)
		if got := raw.content(t); !bytes.Equal(got, want) {
			t.Errorf("%q became %q, want %q", body, got, want)
		}
	})
}
