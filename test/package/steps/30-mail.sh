# the first connection starts the daemon; mail arrives as its owners'
is "lmtpd.service" inactive "$(prop lmtpd.service ActiveState)"
mail alice@example.org bob+lists@example.org dora@example.net
within 20 "alice has mail" holds 1 /home/alice/Maildir/new
within 20 "bob has mail" holds 1 /home/bob/Maildir/new
within 20 "dora, an address of the user file, has mail" holds 1 /srv/vmail/example.net/dora/Maildir/new
is "lmtpd.service" active "$(prop lmtpd.service ActiveState)"
is "lmtpd-writer.service" active "$(prop lmtpd-writer.service ActiveState)"
is "alice's mail" "alice:alice 600" "$(stat -c '%U:%G %a' /home/alice/Maildir/new/*)"
is "alice's Maildir" "alice:alice 700" "$(stat -c '%U:%G %a' /home/alice/Maildir)"
is "dora's mail" "vmail:vmail 600" "$(stat -c '%U:%G %a' /srv/vmail/example.net/dora/Maildir/new/*)"
is "$generic, once lmtpd runs" "root:lmtpd 660" "$(stat -c '%U:%G %a' $generic)"
is "/run/lmtpd/status.sock" "lmtpd:lmtpd 600" "$(stat -c '%U:%G %a' /run/lmtpd/status.sock)"
mail nobody-here@example.net
within 20 "an unknown user is refused at RCPT" grep -q '550 5.1.1' /var/log/mail.log
