package protocol

import (
	"context"
	"io"
	"strings"
)

// replyStrictASCII is what Text refuses with.
var replyStrictASCII = Reply{Code: 500, Enhanced: Enhanced{5, 6, 1}, Text: "Error: strict ASCII mode"}

// Text makes a handler of a function that takes whole messages as text: LF in place of
// each CR LF, and none at the end of the last line, as Python's smtpd gives them. It is
// what decode_data does there and in aiosmtpd: a session that is not offered SMTPUTF8
// is refused octets outside of ASCII with 500 5.6.1; in any other they are there as they
// came, be they UTF-8 or not. The message is complete when handle is called; the error
// that handle returns is what Deliver returns.
func Text(handle func(ctx context.Context, text string, tx *Transaction) error) Handler {
	return HandlerFunc(func(ctx context.Context, tx *Transaction, body *Body) error {
		var b strings.Builder
		if _, err := io.Copy(&b, body); err != nil {
			return err
		}
		if s := tx.Session; s != nil && s.srv != nil && !s.utf8Offered() && !isASCII(b.String()) {
			return replyStrictASCII
		}
		return handle(ctx, strings.TrimSuffix(strings.ReplaceAll(b.String(), "\r\n", "\n"), "\n"), tx)
	})
}
