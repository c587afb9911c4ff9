package maildir

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

const (
	nameMax = 255 // octets of one directory entry on every common file system
	hostMax = 100 // leaves room for the rest of a name and the flags a reader adds
)

// newName returns a name for new/ by the rules of the Maildir text
// (https://cr.yp.to/proto/maildir.html): seconds, a delivery identifier made of
// microseconds, process, count of deliveries and random bits, and the host.
// S= is the size in octets, W= the size with CRLF line ends; Dovecot and
// Courier read both instead of the file. A token, if there is one, stands in place
// of the random bits.
func (w *Writer) newName(token string, size, vsize int64) string {
	if token == "" {
		var r [8]byte
		rand.Read(r[:]) // never fails (crypto/rand)
		token = hex.EncodeToString(r[:])
	}
	now := w.now()
	return fmt.Sprintf("%d.M%06dP%dQ%dR%s.%s,S=%d,W=%d",
		now.Unix(), now.Nanosecond()/1000, os.Getpid(), w.serial.Add(1),
		token, hostPart(w.Hostname), size, vsize)
}

// hostPart makes a host name fit for a file name. The Maildir text asks for
// \057 and \072 in place of "/" and ":"; the same is done with everything that
// no host name holds, the comma above all, which begins S= and W=.
func hostPart(host string) string {
	if host == "" {
		return "localhost"
	}
	var b strings.Builder
	for i := 0; i < len(host) && b.Len()+4 <= hostMax; i++ {
		c := host[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '.', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	return b.String()
}

// lines counts the LF in p that no CR precedes.
func lines(p []byte) int64 {
	return int64(bytes.Count(p, []byte{'\n'}) - bytes.Count(p, []byte("\r\n")))
}

// validRoot: absolute, and nothing the kernel would cut short.
func validRoot(root string) bool {
	return strings.HasPrefix(root, "/") && !strings.Contains(root, "\x00")
}

// validPath reports whether p may be used below a root: empty, or components
// that each are one name. openat2 would refuse to leave the root as well; this
// keeps "..", "//" and the like out of logs and created directories.
func validPath(p string) bool {
	if p == "" {
		return true
	}
	for c := range strings.SplitSeq(p, "/") {
		if c == "" || c == "." || c == ".." || len(c) > nameMax || strings.Contains(c, "\x00") {
			return false
		}
	}
	return true
}

// validFolder reports whether f can be the directory of a Maildir++ folder: a
// dot and then names separated by dots, none of them empty.
func validFolder(f string) bool {
	if len(f) < 2 || len(f) > nameMax || f[0] != '.' || f[len(f)-1] == '.' || strings.Contains(f, "..") {
		return false
	}
	for i := range len(f) {
		if f[i] < ' ' || f[i] == '/' || f[i] == 0x7f {
			return false
		}
	}
	return true
}
