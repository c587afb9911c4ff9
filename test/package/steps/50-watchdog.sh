# a hung process is killed and started again; who waits is served
drop_in lmtpd.service watchdog <<'END'
[Service]
WatchdogSec=2
END
systemctl restart lmtpd.service
pid=$(main_pid)
kill -STOP "$pid"
show "process $pid is stopped"
/test/load -socket $postfix -n 20 -workers 20 -to emma@example.net >/tmp/load &
client=$!
within 30 "systemd has killed it and started another" newer_pid "$pid"
wait $client || { cat /tmp/load; fail "load"; }
sed 's/^/   /' /tmp/load
journalctl -q -u lmtpd.service --since=-60s --grep 'Watchdog timeout' >/dev/null || fail "no watchdog timeout in the journal"
is "why it ended" watchdog "$(journalctl -q -o json -u lmtpd.service --since=-60s --grep "Failed with result" -n 1 | sed -n "s/.*result '\([a-z]*\)'.*/\1/p")"
no_drop_in lmtpd.service watchdog
systemctl restart lmtpd.service
