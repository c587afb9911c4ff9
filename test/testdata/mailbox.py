"""Reads the Maildir that is named with Python's own library, writes all its messages,
and marks every second one that is new as seen, which moves it to cur/."""
import mailbox
import sys

box = mailbox.Maildir(sys.argv[1], create=False)
for number, key in enumerate(box.iterkeys()):
    message = box.get_message(key)
    content = box.get_bytes(key)
    sys.stdout.buffer.write(content)
    if number % 2 == 0 and message.get_subdir() == "new":
        # Assigning it would write the message anew.
        import os
        os.rename(os.path.join(box._path, "new", key), os.path.join(box._path, "cur", key + ":2,S"))
