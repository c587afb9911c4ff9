# 10 000 messages while the daemon is restarted every second
every_second() { while sleep 1; do systemctl restart "$@" && echo restarted >>/tmp/restarts; done; }
emma=/srv/vmail/example.net/emma/Maildir carol=/home/carol/Maildir
for sessions in 1 5; do
	rm -rf $emma $carol /tmp/restarts
	every_second lmtpd.service &
	restarter=$!
	ok=0
	/test/load -socket $postfix -n 10000 -rate 600 -workers 8 -per-session $sessions -to emma@example.net,carol@example.org >/tmp/load || ok=$?
	kill $restarter
	wait $restarter 2>/dev/null || true
	sed 's/^/   /' /tmp/load
	[ $ok = 0 ] || fail "load with $sessions messages for each connection"
	show "restarts meanwhile: $(wc -l </tmp/restarts)"
	[ "$(wc -l </tmp/restarts)" -ge 10 ] || fail "too few restarts to show anything"
	is "messages that arrived" 10000 "$(count $emma/new $carol/new)"
	is "different ones" 10000 "$(grep -hs '^X-Load: ' -r $emma/new $carol/new | sort -u | wc -l)"
	is "files left in tmp/" 0 "$(count $emma/tmp $carol/tmp)"
done
