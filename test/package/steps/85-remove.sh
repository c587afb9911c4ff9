# removal keeps configuration and mail; Postfix keeps what comes meanwhile
emma=/srv/vmail/example.net/emma/Maildir
mails=$(count /home /srv/vmail)
apt-get -y -q remove lmtpd >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt remove"; }
is "processes of lmtpd" "" "$(ps -C lmtpd -o pid=)"
is "sockets" "" "$(ls -d /run/lmtpd /var/spool/postfix/lmtpd 2>/dev/null)"
is "units that are active" "" "$(systemctl list-units --plain --no-legend 'lmtpd*')"
is "configuration" "/etc/lmtpd/lmtpd.toml /etc/lmtpd/users" "$(echo /etc/lmtpd/*)"
is "mail" "$mails" "$(count /home /srv/vmail)"
mail emma@example.net
deferred() { postqueue -p | grep -q emma@example.net; }
within 20 "mail waits in Postfix's queue" deferred
apt-get -y -q --no-install-recommends install /test/lmtpd-next.deb >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install"; }
within 10 "installed again: lmtpd-postfix.socket is open" active lmtpd-postfix.socket
postqueue -f
within 30 "and what waited arrives" holds $((mails + 1)) /home /srv/vmail
