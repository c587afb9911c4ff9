package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/lmtpd/lmtpd/delivery/maildir"
	"github.com/lmtpd/lmtpd/protocol"
	"github.com/lmtpd/lmtpd/userdb"
)

// The whole table, with the words that clients read.
func TestReplyTable(t *testing.T) {
	mailbox := func(err error) error { return &maildir.Error{Op: maildir.OpWrite, Path: "/home/bob", Err: err} }
	spool := func(err error) error {
		return &spoolError{&fs.PathError{Op: "write", Path: "/var/lib/lmtpd", Err: err}}
	}
	seen := map[error]bool{}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&userdb.BadAddressError{Address: "x", Reason: "y"}, "501 5.1.3 Bad recipient address"},
		{userdb.ErrNoSuchDomain, "550 5.1.2 No mail for this domain here"},
		{userdb.ErrNoSuchUser, "550 5.1.1 User unknown"},
		{userdb.ErrDisabled, "550 5.2.1 Mailbox disabled"},
		{fmt.Errorf("%w: %w", errFull, mailbox(maildir.ErrQuota)), "552 5.2.2 Mailbox is full"},
		{mailbox(maildir.ErrQuotaSize), "552 5.2.3 Message is larger than this mailbox may hold"},
		{mailbox(maildir.ErrQuota), "452 4.2.2 Mailbox is full"},
		{errLoop, "554 5.4.6 Message was delivered to this address before: mail loop"},
		{errHops, "554 5.4.6 Too many Received fields: mail loop"},
		{errRelayLoop, "554 5.4.6 Message has been relayed by this host too often: mail loop"},
		{ErrNoUTF8, "550 5.6.7 Next server takes no UTF-8 addresses and headers"},
		{ErrNoRequireTLS, "550 5.7.30 Next server does not promise REQUIRETLS"},
		{ErrNotAsIs, "554 5.6.3 Next server cannot take this message as it is"},
		{fmt.Errorf("%w: %w", ErrUnreachable, syscall.ECONNREFUSED), "451 4.4.1 Next server cannot be reached"},
		{fmt.Errorf("%w: %w", ErrBroken, context.DeadlineExceeded), "451 4.4.2 Next server did not answer"},
		{fmt.Errorf("%w: %w", ErrUnsafe, io.EOF), "451 4.7.5 Connection to the next server is not safe"},
		{ErrBusy, "451 4.3.2 Too many deliveries at once"},
		{fmt.Errorf("%w: %w", ErrSlow, context.DeadlineExceeded), "451 4.3.0 Delivery took too long"},
		{errUnderWay, "451 4.3.2 Message is still being delivered since it came before"},
		{fmt.Errorf("%w: %w", ErrMisconfigured, syscall.EACCES), "451 4.3.5 Delivery is misconfigured"},
		{userdb.ErrBadRecord, "451 4.3.5 Recipient is misconfigured"},
		{mailbox(maildir.ErrOwner), "451 4.3.5 Recipient is misconfigured"},
		{mailbox(maildir.ErrPath), "451 4.3.5 Recipient is misconfigured"},
		{spool(syscall.ENOSPC), "452 4.3.1 Insufficient system storage"},
		{spool(syscall.EDQUOT), "452 4.3.1 Insufficient system storage"},
		{spool(syscall.EACCES), "451 4.3.0 Temporary internal failure"},
		{spool(syscall.EIO), "451 4.3.0 Temporary internal failure"},
		{mailbox(fmt.Errorf("%w: %w", maildir.ErrRoot, syscall.ENOENT)), "451 4.2.0 Mailbox is not available"},
		{mailbox(maildir.ErrBusy), "451 4.3.2 Too many deliveries to this mailbox at once"},
		{mailbox(syscall.EDQUOT), "452 4.2.2 Mailbox is full"},
		{mailbox(syscall.ENOSPC), "452 4.3.1 Insufficient system storage"},
		{mailbox(syscall.EFBIG), "452 4.3.1 Insufficient system storage"},
		{mailbox(syscall.ELOOP), "451 4.2.0 Mailbox is damaged"},
		{mailbox(syscall.ENOTDIR), "451 4.2.0 Mailbox is damaged"},
		{mailbox(syscall.EXDEV), "451 4.2.0 Mailbox is damaged"},
		{mailbox(context.DeadlineExceeded), "451 4.2.0 Mailbox did not answer in time"},
		{mailbox(context.Canceled), "451 4.3.2 Delivery was interrupted"},
		{mailbox(syscall.EACCES), "451 4.3.0 Mailbox cannot be written"},
		{mailbox(syscall.EPERM), "451 4.3.0 Mailbox cannot be written"},
		{fmt.Errorf("%w: %w", errCutOff, io.ErrUnexpectedEOF), "451 4.4.2 Message did not arrive whole"},
		// Everything else may be mended: it never bounces.
		{mailbox(syscall.EIO), "451 4.3.0 Temporary internal failure"},
		{mailbox(syscall.EROFS), "451 4.3.0 Temporary internal failure"},
		{mailbox(syscall.ESTALE), "451 4.3.0 Temporary internal failure"},
		{mailbox(syscall.EMFILE), "451 4.3.0 Temporary internal failure"},
		{mailbox(syscall.EINVAL), "451 4.3.0 Temporary internal failure"},
		{mailbox(syscall.ENOENT), "451 4.3.0 Temporary internal failure"},
		{errors.New("lookup: connection refused"), "451 4.3.0 Temporary internal failure"},
	} {
		if got := replyFor(test.err).Error(); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
		for _, row := range failures {
			if errors.Is(test.err, row.cause) {
				seen[row.cause] = true
				break
			}
		}
	}
	for _, row := range failures {
		if !seen[row.cause] {
			t.Errorf("no test gets to the row of %v", row.cause)
		}
		if r := row.reply; r.OK() || int(r.Enhanced[0]) != r.Code/100 || strings.ContainsAny(r.Text, "/\n") {
			t.Errorf("row of %v: %v", row.cause, r.Error())
		}
	}
}

func TestWorstReply(t *testing.T) {
	ok := func(id string) protocol.Reply { return delivered(id) }
	full := temp(452, 2, 2, "Mailbox is full")
	unknown := perm(550, 1, 1, "User unknown")
	for _, test := range []struct {
		name string
		in   []protocol.Reply
		want string
	}{
		{"one", []protocol.Reply{ok("a")}, "250 2.0.0 OK a delivered"},
		{"all served", []protocol.Reply{ok("a"), ok("a")}, "250 2.0.0 OK a delivered"},
		{"all refused", []protocol.Reply{unknown, perm(554, 4, 6, "loop")}, "550 5.1.1 User unknown"},
		{"served and deferred", []protocol.Reply{ok("a"), full}, "452 4.2.2 Mailbox is full"},
		{"refused and deferred", []protocol.Reply{unknown, full}, "452 4.2.2 Mailbox is full"},
		{"served and refused", []protocol.Reply{ok("a"), unknown}, "451 4.3.0 Not every recipient could be served"},
		{"refused and served", []protocol.Reply{unknown, ok("a")}, "451 4.3.0 Not every recipient could be served"},
	} {
		var w worstReply
		for _, r := range test.in {
			w.add(r)
		}
		if got := w.reply().Error(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestLoops(t *testing.T) {
	m := &message{spooled: &spooled{header: messageHeader{received: 31, deliveredTo: []string{"x@y", "BOB@example.org", `"a b"@example.org`}}}}
	for _, test := range []struct {
		agent  *Agent
		local  string
		want   error
		detail string
	}{
		{&Agent{LoopCheck: true}, "bob", errLoop, ""},
		{&Agent{LoopCheck: true}, "a b", errLoop, ""},
		{&Agent{LoopCheck: true}, "ann", nil, ""},
		{&Agent{}, "bob", nil, ""},
		{&Agent{MaxReceived: 31}, "bob", nil, ""},
		{&Agent{MaxReceived: 30}, "bob", errHops, "31, and 30 are allowed"},
	} {
		err := test.agent.loops(m, rcptOf(test.local, "example.org"))
		if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.detail) {
			t.Errorf("%s: %v, want %v", test.local, err, test.want)
		}
	}
}
