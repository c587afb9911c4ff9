package protocol

import "bytes"

// normalizer makes CR LF of every CR and LF that stands alone, in content that comes
// in pieces.
type normalizer struct {
	cr  bool // a CR is held back: its LF may come with the next piece
	out []byte
}

// convert gives what span becomes, last telling that nothing follows. The result is
// valid until the next call.
func (n *normalizer) convert(span []byte, last bool) []byte {
	if !n.cr && len(span) > 0 && span[len(span)-1] != '\r' {
		pairs := bytes.Count(span, crlf)
		if bytes.Count(span, crlf[:1]) == pairs && bytes.Count(span, crlf[1:]) == pairs {
			return span // as nearly all mail is
		}
	}
	out := n.out[:0]
	for _, c := range span {
		if n.cr || c == '\n' {
			out = append(out, '\r', '\n')
		}
		if c != '\r' && c != '\n' {
			out = append(out, c)
		} else if n.cr && c == '\n' {
			n.cr = false
			continue
		}
		n.cr = c == '\r'
	}
	if last && n.cr {
		out = append(out, '\r', '\n')
		n.cr = false
	}
	n.out = out
	return out
}
