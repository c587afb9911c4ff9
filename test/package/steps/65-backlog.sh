# connections wait in the backlog; a full one is EAGAIN, not a refusal
somaxconn=$(cat /proc/sys/net/core/somaxconn)
is "backlog of $postfix" "$somaxconn" "$(ss -xlH src $postfix 2>/dev/null | awk '{print $4}')"
pid=$(main_pid)
kill -STOP "$pid"
/test/load -socket $postfix -n 500 -workers 500 -to emma@example.net >/tmp/load &
client=$!
sleep 2
kill -CONT "$pid"
wait $client || { cat /tmp/load; fail "load"; }
show "500 connections at once to a daemon that does not accept:"
sed 's/^/   /' /tmp/load

drop_in lmtpd-postfix.socket backlog <<'END'
[Socket]
Backlog=4
END
systemctl stop lmtpd.service
systemctl restart lmtpd-postfix.socket
/test/load -socket $postfix -n 1 -to emma@example.net >/dev/null || fail "load"
pid=$(main_pid)
kill -STOP "$pid"
/test/load -strict=false -socket $postfix -n 40 -workers 40 -to emma@example.net >/tmp/load &
client=$!
sleep 0.5
kill -CONT "$pid"
wait $client || true
grep -q 'resource temporarily unavailable' /tmp/load || { cat /tmp/load; fail "a backlog of 4 was never full"; }
grep -q '^40 messages' /tmp/load || { cat /tmp/load; fail "clients that tried again were not served"; }
show "a backlog of 4 and 40 clients: EAGAIN, and all are served once the daemon accepts again"
no_drop_in lmtpd-postfix.socket backlog
systemctl stop lmtpd.service
systemctl restart lmtpd-postfix.socket
