package delivery

import (
	"bytes"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// maxLine is the most octets that a line may have without its end (RFC 5322 section
// 2.1.1).
const maxLine = 998

// evenHeaders makes the headers of copies equally long, by blanks before the date of
// Received: folding white space, of which there may be any amount (RFC 5322 section
// 3.2.2). The body then begins at the same octet of each file, and where the file
// system can, maildir.Writer lets the copies of a large one share its blocks.
func evenHeaders(targets []maildir.Target) {
	longest := 0
	for i := range targets {
		longest = max(longest, len(targets[i].Header))
	}
	for i := range targets {
		targets[i].Header = lengthen(targets[i].Header, longest)
	}
}

// lengthen makes a header so long, unless a line would become too long. What stands
// before Received may have an address in it, in which each blank counts.
func lengthen(header []byte, length int) []byte {
	at := bytes.LastIndex(header, []byte("; "))
	if at < 0 || len(header) >= length || at < bytes.LastIndex(header, []byte("Received: ")) {
		return header
	}
	begin := bytes.LastIndexByte(header[:at], '\n') + 1
	end := at + max(bytes.IndexByte(header[at:], '\n'), 0)
	blanks := length - len(header)
	if end-begin+blanks > maxLine {
		return header
	}
	long := make([]byte, 0, length)
	long = append(long, header[:at+1]...)
	long = append(long, bytes.Repeat([]byte(" "), blanks)...)
	return append(long, header[at+1:]...)
}
