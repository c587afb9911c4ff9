# 10 000 messages while the daemon is restarted every second
: >/home/alice/.hushlogin
before_a=$(count /home/alice/Maildir/new) before_c=$(count /home/carol/Maildir/new)
(
	while sleep 1; do
		systemctl restart lmtpd.service || echo "   systemctl restart failed"
		echo restarted >>/tmp/restarts
	done
) &
restarter=$!
: >/tmp/restarts
/test/load -socket $postfix -n 10000 -workers 8 -to alice@example.org,carol@example.org | sed 's/^/   /' || { kill $restarter; fail "load"; }
kill $restarter
wait $restarter 2>/dev/null || true
show "restarts: $(wc -l </tmp/restarts)"
[ "$(wc -l </tmp/restarts)" -ge 5 ] || fail "too few restarts to show anything"
is "messages that arrived" 10000 $(($(count /home/alice/Maildir/new) - before_a + $(count /home/carol/Maildir/new) - before_c))
is "different messages" 10000 "$(grep -hs '^X-Load: ' -r /home/alice/Maildir/new /home/carol/Maildir/new | sort -u | wc -l)"
is "files left in tmp/" 0 "$(count /home/alice/Maildir/tmp /home/carol/Maildir/tmp)"
rm -r /home/alice/Maildir /home/carol/Maildir
