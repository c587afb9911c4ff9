# reload by systemctl and SIGHUP; a broken configuration is refused
greeting() { lmtpd send -f a@example.org --to $generic nobody-at-all@example.net </dev/null 2>&1 || true; }
names() { greeting >/tmp/greeting; grep -q "220 $1 " /tmp/greeting; }
cp /etc/lmtpd/lmtpd.toml /tmp/lmtpd.toml
pid=$(main_pid)
sed -i '1i hostname = "one.example.org"' /etc/lmtpd/lmtpd.toml
systemctl reload lmtpd.service
within 5 "systemctl reload: the new host name is in the greeting" names one.example.org
sed -i 's/one.example.org/two.example.org/' /etc/lmtpd/lmtpd.toml
kill -HUP "$pid"
within 5 "SIGHUP: so is the next" names two.example.org
is "state after a reload" "active running" "$(prop lmtpd.service ActiveState) $(prop lmtpd.service SubState)"
sed -i 's/two.example.org/no such host!/' /etc/lmtpd/lmtpd.toml
systemctl reload lmtpd.service
refused() { journalctl -q -u lmtpd.service --since=-60s --grep 'configuration refused' | grep -q hostname; }
within 5 "a broken configuration is refused, with line and key in the journal" refused
within 5 "and the old one stays" names two.example.org
is "the process" "$pid" "$(main_pid)"

# A restart with it: mail waits at the socket until the configuration is mended.
systemctl restart lmtpd.service 2>/dev/null && fail "a restart with a broken configuration succeeded"
show "systemctl restart says that it failed"
/test/load -socket $postfix -n 5 -workers 5 -to emma@example.net >/tmp/load &
client=$!
sleep 3
kill -0 $client || { cat /tmp/load; fail "clients were sent away"; }
is "lmtpd.socket, with a daemon that cannot start" active "$(prop lmtpd.socket ActiveState)"
cp /tmp/lmtpd.toml /etc/lmtpd/lmtpd.toml
wait $client || { cat /tmp/load; fail "load"; }
sed 's/^/   /' /tmp/load
within 10 "once mended, lmtpd starts by itself" active lmtpd.service
