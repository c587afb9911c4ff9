# a hung process of either kind is killed and started again; who waits is served
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

drop_in lmtpd-writer.service watchdog <<'END'
[Service]
WatchdogSec=2
END
systemctl restart lmtpd-writer.service
writer() { prop lmtpd-writer.service MainPID; }
other_writer() { [ "$(writer)" != 0 ] && [ "$(writer)" != "$1" ]; } # OLD
emma=/srv/vmail/example.net/emma/Maildir
rm -rf $emma
pid=$(writer)
kill -STOP "$pid"
show "the writer, process $pid, is stopped"
/test/load -strict=false -socket $postfix -n 20 -workers 20 -to emma@example.net >/tmp/load &
client=$!
within 30 "systemd has killed it and started another" other_writer "$pid"
wait $client || { cat /tmp/load; fail "load"; }
sed 's/^/   /' /tmp/load
journalctl -q -u lmtpd-writer.service --since=-60s --grep 'Watchdog timeout' >/dev/null || fail "no watchdog timeout in the journal"
is "different messages that arrived" 20 "$(grep -hs '^X-Load: ' -r $emma/new | sort -u | wc -l)"
lmtpd status | grep 'requests:' | sed 's/^ */   status: /'
no_drop_in lmtpd-writer.service watchdog
systemctl restart lmtpd-writer.service
