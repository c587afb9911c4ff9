# a program of the administrator: refused by the sandbox, until a drop-in names it
cat >/usr/local/bin/over-quota <<'END'
#!/bin/sh
echo "$1" >/var/lib/lmtpd/over-quota
END
chmod 755 /usr/local/bin/over-quota
cp /etc/lmtpd/lmtpd.toml /tmp/lmtpd.toml
cat >>/etc/lmtpd/lmtpd.toml <<'END'

[mailbox]
quota = "10 KiB"

[[quota_warning]]
percent = 10
command = ["/usr/local/bin/over-quota", "{address}"]
END
lmtpd check | sed 's/^/   | /'
systemctl restart lmtpd.service lmtpd-writer.service
fill() { { printf 'Subject: %s\n\n' "$1"; head -c 3000 /dev/zero | tr '\0' x | fold; } | lmtpd send -f root@example.org --to $generic fred@example.net >/dev/null; }
failed() { journalctl -q -o cat -u lmtpd.service --since=-60s | grep 'over-quota.*permission denied'; }
fill one
within 10 "without a drop-in the program is not started, and the log says so" failed
drop_in lmtpd.service programs <<'END'
[Service]
ExecPaths=/usr/local/bin/over-quota /bin/sh
END
systemctl restart lmtpd.service
rm -rf /srv/vmail/example.net/fred/Maildir
fill two
within 10 "with it, it is" grep -q fred@example.net /var/lib/lmtpd/over-quota
no_drop_in lmtpd.service programs
rm -rf /usr/local/bin/over-quota /var/lib/lmtpd/over-quota /srv/vmail/example.net/fred/Maildir
cp /tmp/lmtpd.toml /etc/lmtpd/lmtpd.toml
systemctl restart lmtpd.service lmtpd-writer.service
