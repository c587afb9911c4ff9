# 4 000 messages through Postfix while the daemon is restarted every second
every_second() { while sleep 1; do systemctl restart "$@" && echo restarted >>/tmp/restarts; done; }
carol=/home/carol/Maildir emma=/srv/vmail/example.net/emma/Maildir
rm -rf $carol $emma /tmp/restarts
: >/var/log/mail.log
every_second lmtpd.service &
restarter=$!
smtp-source -s 4 -m 2000 -l 2000 -f root@example.org -t carol@example.org localhost:25 &
smtp-source -s 4 -m 2000 -l 2000 -f root@example.org -t emma@example.net localhost:25
within 120 "4000 messages arrived" holds 4000 $carol/new $emma/new
kill $restarter
wait $restarter 2>/dev/null || true
show "restarts meanwhile: $(wc -l </tmp/restarts)"
grep 'status=deferred' /var/log/mail.log | sed 's/.*relay=/   relay=/' | cut -c 1-250 | head -5 || true
is "messages that Postfix deferred" 0 "$(grep -c 'status=deferred' /var/log/mail.log || true)"
