package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Messages are made from their number, so that each can be told from every other
// and compared octet by octet without being kept.

const (
	sender     = "sender@client.example.net"
	domain     = "@example.org"
	numberMark = "X-Number: "
)

// copyID is one message for one user.
type copyID struct{ message, user int }

func userName(n int) string { return fmt.Sprintf("u%03d", n) }

// content is a message as it is stored, without lmtpd's trace header.
func content(message, size int) []byte {
	rng := rand.New(rand.NewPCG(uint64(message), 1))
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\n%s%d %d\nSubject: message %d\n\n", sender, numberMark, message, size, message)
	for b.Len() < size {
		fmt.Fprintf(&b, "%016x%016x%016x%016x\n", rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64())
	}
	fmt.Fprintf(&b, "end of %d\n", message)
	return b.Bytes()
}

// asSent is the same on the wire; no line begins with a dot.
func asSent(stored []byte) []byte { return bytes.ReplaceAll(stored, []byte("\n"), []byte("\r\n")) }

// header is what the writers of this package write before a message.
func header(user int) string {
	return "Return-Path: <" + sender + ">\nDelivered-To: " + userName(user) + domain + "\n"
}

var (
	tracePattern  = regexp.MustCompile(`\AReturn-Path: <` + regexp.QuoteMeta(sender) + ">\n(?:Delivered-To: (u[0-9]+)" + domain + "\n)?(?:Received: [^\n]*\n(?:\t[^\n]*\n)*)?")
	numberPattern = regexp.MustCompile("(?m)^" + numberMark + "([0-9]+) ([0-9]+)$")
	namePattern   = regexp.MustCompile(`^[0-9]+\.[A-Za-z0-9_]+\.[^,:/]+,S=([0-9]+),W=([0-9]+)$`)
)

// Kinds of faults that a check finds.
const (
	faultLost   = "lost"       // acknowledged and not there
	faultMoved  = "moved"      // acknowledged and put into lost+found by fsck
	faultHalf   = "incomplete" // in new/ or cur/ and not a whole message
	faultTwice  = "twice"
	faultSystem = "file system" // does not mount, or its check complains
)

type fault struct{ kind, text string }

// check looks at all mailboxes below root as a mail reader would, after a cut
// before which the copies in acknowledged had their 250.
func check(root string, acknowledged, orphans map[copyID]bool) (faults []fault, found int, err error) {
	there := make(map[copyID]int)
	homes, err := os.ReadDir(root)
	if err != nil {
		return nil, 0, err
	}
	for _, home := range homes {
		user, err := strconv.Atoi(strings.TrimPrefix(home.Name(), "u"))
		if err != nil {
			continue
		}
		for _, sub := range []string{"new", "cur"} {
			dir := filepath.Join(root, home.Name(), "Maildir", sub)
			files, err := os.ReadDir(dir)
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				faults = append(faults, fault{faultSystem, err.Error()})
				continue
			}
			for _, f := range files {
				message, problem := checkFile(filepath.Join(dir, f.Name()), user)
				if problem != "" {
					faults = append(faults, fault{faultHalf, filepath.Join(dir, f.Name()) + ": " + problem})
					continue
				}
				there[copyID{message, user}]++
			}
		}
	}
	for id := range acknowledged {
		if there[id] == 0 {
			kind := faultLost
			if orphans[id] {
				kind = faultMoved
			}
			faults = append(faults, fault{kind, fmt.Sprintf("message %d for %s", id.message, userName(id.user))})
		}
	}
	for id, n := range there {
		found += n
		if n > 1 {
			faults = append(faults, fault{faultTwice, fmt.Sprintf("message %d for %s: %d times", id.message, userName(id.user), n)})
		}
	}
	return faults, found, nil
}

// orphans returns the copies that fsck has put into lost+found. Those that name no
// recipient are left out.
func orphans(dir string) (map[copyID]bool, error) {
	files, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	found := make(map[copyID]bool)
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		head := tracePattern.FindSubmatch(b)
		if head == nil || len(head[1]) == 0 {
			continue
		}
		user, _ := strconv.Atoi(string(head[1][1:]))
		if message, ok := number(b[len(head[0]):]); ok {
			found[copyID{message, user}] = true
		}
	}
	return found, err
}

// number returns the number of a message, if it is whole.
func number(b []byte) (message int, whole bool) {
	n := numberPattern.FindSubmatch(b[:min(len(b), 4096)])
	if n == nil {
		return 0, false
	}
	message, _ = strconv.Atoi(string(n[1]))
	size, _ := strconv.Atoi(string(n[2]))
	return message, bytes.Equal(b, content(message, size))
}

// checkFile returns the number of the message in a file, or what is wrong.
func checkFile(path string, user int) (message int, problem string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err.Error()
	}
	name := namePattern.FindStringSubmatch(filepath.Base(path))
	if name == nil {
		return 0, "foreign name"
	}
	if name[1] != strconv.Itoa(len(b)) || name[2] != strconv.Itoa(len(b)+bytes.Count(b, []byte("\n"))) {
		return 0, fmt.Sprintf("%d octets", len(b))
	}
	head := tracePattern.FindSubmatch(b)
	// The header of a file that several users share names none of them.
	if head == nil || len(head[1]) > 0 && string(head[1]) != userName(user) {
		return 0, "foreign header"
	}
	message, whole := number(b[len(head[0]):])
	if !whole {
		return message, "content differs"
	}
	return message, ""
}
