package writer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lmtpd/lmtpd/delivery/maildir"
)

// Limits of a request. Together those of a target fit into a packet.
const (
	maxTargets = 1000
	maxHeader  = 32 << 10 // octets of the header of one copy
	maxPath    = 4096     // octets of a root and of a path, as PATH_MAX
	maxFolder  = 255
	maxAccount = 2048
	maxToken   = 64
	maxFlags   = 16
	maxGroups  = 4096    // supplementary groups of an owner
	maxIgnored = 4096    // octets of the folders that a quota ignores, with their lengths
	maxAll     = 4 << 20 // octets of all target frames of a request

	// maxInline is the largest body that travels through the socket. What it costs
	// to copy it is less than what a memfd costs, at every size that was measured
	// (BenchmarkBody); the limit is there to bound the writer's memory.
	maxInline = 256 << 10
)

// How the body of a request travels.
const (
	bodyInline = iota // in data frames
	bodyFile          // as the descriptor that comes with the packet of the begin frame
	bodyNone          // not at all: the question is whether size octets would fit
)

// begin is the first frame of a request.
type begin struct {
	timeout time.Duration // until the deadline; 0: there is none
	size    int64         // octets of the body
	lines   int64         // see maildir.Body
	body    byte
	targets uint32
}

func (g *begin) append(b []byte) []byte {
	start := len(b)
	b = beginFrame(b, frameBegin)
	b = appendCount(b, int64(g.timeout))
	b = appendCount(b, g.size)
	b = appendCount(b, g.lines)
	b = append(b, g.body)
	return endFrame(appendUint32(b, g.targets), start)
}

func decodeBegin(payload []byte) (begin, error) {
	d := decoder{rest: payload}
	g := begin{
		timeout: time.Duration(d.count("timeout")),
		size:    d.count("size"), lines: d.count("number of lines"),
		body: d.octet("kind of body"), targets: d.uint32("number of targets"),
	}
	switch {
	case d.err != nil:
	case g.body > bodyNone:
		d.fail("kind of body is %d", g.body)
	case g.body == bodyInline && g.size > maxInline:
		d.fail("body of %d octets in the socket, and %d are allowed", g.size, maxInline)
	case g.body == bodyNone && g.targets != 1:
		d.fail("question about %d targets", g.targets)
	case g.lines > g.size:
		d.fail("%d lines in %d octets", g.lines, g.size)
	case g.targets == 0 || g.targets > maxTargets:
		d.fail("%d targets, and 1 to %d are allowed", g.targets, maxTargets)
	}
	return g, d.end()
}

// Flags of a target frame.
const (
	targetHasOwner = 1 << iota
	targetSeek
	targetMakeFolder
	targetHasQuota
	targetQuotaGrace
	targetQuotaExempt
	targetShare
	targetFlags = iota // number of them
)

// errTooLong: a target does not fit into a request.
var errTooLong = errors.New("too long for a request to the writer process")

// checkTarget says whether the other side will take a target.
func checkTarget(t *maildir.Target) error {
	tooLong := func(what string, have, most int) error {
		if have <= most {
			return nil
		}
		return fmt.Errorf("%w: %s has %d, and %d are allowed", errTooLong, what, have, most)
	}
	groups := 0
	if t.Owner != nil {
		groups = len(t.Owner.Groups)
	}
	if strings.Contains(t.Root+t.Path+t.Folder, "\x00") {
		return fmt.Errorf("%w: NUL", maildir.ErrPath)
	}
	return errors.Join(
		tooLong("root", len(t.Root), maxPath), tooLong("path", len(t.Path), maxPath),
		tooLong("folder", len(t.Folder), maxFolder), tooLong("account", len(t.Account), maxAccount),
		tooLong("token", len(t.Token), maxToken), tooLong("flags", len(t.Flags), maxFlags),
		tooLong("list of groups", groups, maxGroups), tooLong("header", len(t.Header), maxHeader),
		tooLong("list of ignored folders", ignoredSize(t.Quota), maxIgnored), negativeQuota(t.Quota),
	)
}

func negativeQuota(q *maildir.Quota) error {
	if q != nil && (q.Octets < 0 || q.Messages < 0) {
		return errors.New("quota is negative")
	}
	return nil
}

// ignoredSize is the length of the folders that a quota ignores.
func ignoredSize(q *maildir.Quota) (n int) {
	if q != nil {
		for _, f := range q.Ignore {
			n += 4 + len(f)
		}
	}
	return n
}

// targetSize is the length of a target's frame.
func targetSize(t *maildir.Target) int {
	n := frameHead + 1 + 7*4 + len(t.Root) + len(t.Path) + len(t.Folder) + len(t.Account) + len(t.Token) + len(t.Flags) + len(t.Header)
	if t.Owner != nil {
		n += 3*4 + 4*len(t.Owner.Groups)
	}
	if t.Quota != nil {
		n += 2*8 + 4 + ignoredSize(t.Quota)
	}
	return n
}

func appendTarget(b []byte, t *maildir.Target) []byte {
	start := len(b)
	flags := byte(0)
	if t.Owner != nil {
		flags |= targetHasOwner
	}
	if t.Seek {
		flags |= targetSeek
	}
	if t.MakeFolder {
		flags |= targetMakeFolder
	}
	if t.Share {
		flags |= targetShare
	}
	if t.Quota != nil {
		flags |= targetHasQuota
		if t.Quota.Grace {
			flags |= targetQuotaGrace
		}
		if t.Quota.Exempt {
			flags |= targetQuotaExempt
		}
	}
	b = append(beginFrame(b, frameTarget), flags)
	if o := t.Owner; o != nil {
		b = appendUint32(appendUint32(b, o.UID), o.GID)
		b = appendUint32(b, uint32(len(o.Groups)))
		for _, g := range o.Groups {
			b = appendUint32(b, g)
		}
	}
	if q := t.Quota; q != nil {
		b = appendCount(appendCount(b, q.Octets), q.Messages)
		b = appendUint32(b, uint32(len(q.Ignore)))
		for _, f := range q.Ignore {
			b = appendText(b, f)
		}
	}
	for _, s := range []string{t.Root, t.Path, t.Folder, t.Account, t.Token, t.Flags} {
		b = appendText(b, s)
	}
	return endFrame(appendText(b, t.Header), start)
}

// decodeTarget keeps nothing of payload.
func decodeTarget(payload []byte) (maildir.Target, error) {
	d := decoder{rest: payload}
	var t maildir.Target
	flags := d.octet("flags")
	if flags>>targetFlags != 0 {
		d.fail("flags of a target are %#x", flags)
	}
	t.Seek, t.MakeFolder = flags&targetSeek != 0, flags&targetMakeFolder != 0
	t.Share = flags&targetShare != 0
	if flags&targetHasOwner != 0 {
		t.Owner = &maildir.Owner{UID: d.uint32("uid"), GID: d.uint32("gid")}
		n := d.uint32("number of groups")
		if n > maxGroups {
			d.fail("%d groups, and %d are allowed", n, maxGroups)
		}
		for i := uint32(0); i < n && d.err == nil; i++ {
			t.Owner.Groups = append(t.Owner.Groups, d.uint32("group"))
		}
	}
	if flags&targetHasQuota != 0 {
		t.Quota = d.quota(flags&targetQuotaGrace != 0)
		t.Quota.Exempt = flags&targetQuotaExempt != 0
	} else if flags&(targetQuotaGrace|targetQuotaExempt) != 0 {
		d.fail("flags of a target are %#x", flags)
	}
	t.Root, t.Path = d.text(maxPath, "root"), d.text(maxPath, "path")
	t.Folder, t.Account = d.text(maxFolder, "folder"), d.text(maxAccount, "account")
	t.Token, t.Flags = d.text(maxToken, "token"), d.text(maxFlags, "flags of the message")
	if h := d.octets(maxHeader, "header"); len(h) > 0 {
		t.Header = append([]byte(nil), h...)
	}
	if strings.Contains(t.Root+t.Path+t.Folder, "\x00") {
		d.fail("NUL in a path")
	}
	return t, d.end()
}

func (d *decoder) quota(grace bool) *maildir.Quota {
	q := &maildir.Quota{Octets: d.count("quota"), Messages: d.count("quota of messages"), Grace: grace}
	n := d.uint32("number of ignored folders")
	if n > maxIgnored/4 {
		d.fail("%d ignored folders, and %d are allowed", n, maxIgnored/4)
	}
	for i := uint32(0); i < n && d.err == nil; i++ {
		q.Ignore = append(q.Ignore, d.text(maxFolder, "ignored folder"))
	}
	if ignoredSize(q) > maxIgnored {
		d.fail("ignored folders of more than %d octets", maxIgnored)
	}
	return q
}

// request is one that has arrived, or is about to.
type request struct {
	begin
	data []byte // the body, if it travels inline
	file int    // descriptor of the body, -1 if there is none
	all  []maildir.Target
	used int // octets of target frames
	open bool
}

func newRequest() *request { return &request{file: -1} }

// take adds a packet of the request and the descriptor that came with it (-1:
// none), which is the request's from then on. A cancel is not part of a request.
func (r *request) take(packet []byte, fd int) error {
	if fd >= 0 {
		if r.open {
			closeFD(fd)
			return fmt.Errorf("%w: descriptor with a packet that does not begin a request", errProtocol)
		}
		r.file = fd
	}
	if err := frames(packet, r.frame); err != nil {
		return err
	}
	if (r.file >= 0) != (r.body == bodyFile) {
		return fmt.Errorf("%w: kind of body is %d, descriptor passed: %t", errProtocol, r.body, r.file >= 0)
	}
	return nil
}

func (r *request) frame(kind byte, payload []byte) (err error) {
	switch {
	case kind == frameBegin && !r.open:
		r.open = true
		r.begin, err = decodeBegin(payload)
		return err
	case kind == frameTarget && r.open && len(r.all) < int(r.targets):
		if r.used += len(payload); r.used > maxAll {
			return fmt.Errorf("%w: targets of more than %d octets", errProtocol, maxAll)
		}
		t, err := decodeTarget(payload)
		r.all = append(r.all, t)
		return err
	case kind == frameData && r.open && len(r.all) == int(r.targets) && r.body == bodyInline && len(payload) > 0:
		if int64(len(r.data)+len(payload)) > r.size {
			return fmt.Errorf("%w: body is longer than the %d octets announced", errProtocol, r.size)
		}
		if r.data == nil {
			r.data = make([]byte, 0, r.size)
		}
		r.data = append(r.data, payload...)
		return nil
	}
	return fmt.Errorf("%w: frame %q is out of place", errProtocol, kind)
}

// complete reports whether nothing is missing.
func (r *request) complete() bool {
	whole := int64(len(r.data)) == r.size
	switch r.body {
	case bodyFile:
		whole = r.file >= 0
	case bodyNone:
		whole = true
	}
	return r.open && len(r.all) == int(r.targets) && whole
}

// drop closes what the request holds.
func (r *request) drop() {
	if r.file >= 0 {
		closeFD(r.file)
		r.file = -1
	}
}
