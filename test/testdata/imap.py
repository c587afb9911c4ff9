"""Reads INBOX over IMAP, in one session that stays open.

Usage: imap.py HOST PORT USER. For each line of standard input it writes the messages
that have come since the last one, with LF line ends, and then a line "X-Number: end".
A message that is not of the size that the server says is an error.
"""
import imaplib
import re
import sys

host, port, user = sys.argv[1:]
session = imaplib.IMAP4(host, int(port))
session.login(user, "secret")
session.select("INBOX")
last = 0
for _ in sys.stdin:
    session.noop()
    _, data = session.uid("FETCH", "%d:*" % (last + 1), "(UID RFC822.SIZE BODY.PEEK[])")
    latest = last
    for part in data:
        if not isinstance(part, tuple):
            continue
        said = part[0].decode()
        uid = int(re.search(r"UID (\d+)", said).group(1))
        size = int(re.search(r"RFC822\.SIZE (\d+)", said).group(1))
        if uid <= last:  # "n:*" always has the last message
            continue
        if size != len(part[1]):
            sys.exit("UID %d: RFC822.SIZE is %d, but there are %d octets" % (uid, size, len(part[1])))
        latest = max(latest, uid)
        sys.stdout.buffer.write(part[1].replace(b"\r\n", b"\n"))
    last = latest
    sys.stdout.buffer.write(b"X-Number: end\n")
    sys.stdout.buffer.flush()
session.logout()
