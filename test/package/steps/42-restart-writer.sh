# 5 000 messages while both processes are restarted every second
every_second() { while sleep 1; do systemctl restart "$@" && echo restarted >>/tmp/restarts; done; }
emma=/srv/vmail/example.net/emma/Maildir carol=/home/carol/Maildir
rm -rf $emma $carol /tmp/restarts
every_second lmtpd-writer.service lmtpd.service &
restarter=$!
ok=0
/test/load -socket $postfix -n 5000 -rate 400 -workers 8 -to emma@example.net,carol@example.org >/tmp/load || ok=$?
kill $restarter
wait $restarter 2>/dev/null || true
sed 's/^/   /' /tmp/load
[ $ok = 0 ] || fail "load"
show "restarts meanwhile: $(wc -l </tmp/restarts)"
is "messages that arrived" 5000 "$(count $emma/new $carol/new)"
is "different ones" 5000 "$(grep -hs '^X-Load: ' -r $emma/new $carol/new | sort -u | wc -l)"
