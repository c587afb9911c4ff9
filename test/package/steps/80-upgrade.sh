# an upgrade under load keeps configuration, mail and sockets
echo '# of the administrator' >>/etc/lmtpd/lmtpd.toml
sums=$(sha256sum /etc/lmtpd/*)
emma=/srv/vmail/example.net/emma/Maildir
rm -rf $emma
find /home /srv/vmail -type f | sort >/tmp/mails
inodes=$(stat -c '%n %i' $generic $postfix /run/lmtpd/writer.sock)
pid=$(main_pid)
/test/load -socket $postfix -n 4000 -rate 400 -workers 4 -to emma@example.net >/tmp/load &
client=$!
sleep 1
apt-get -y -q --no-install-recommends -o Dpkg::Options::=--force-confdef install /test/lmtpd-next.deb >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install"; }
kill -0 $client || fail "the load was over before the upgrade"
wait $client || { cat /tmp/load; fail "load"; }
sed 's/^/   /' /tmp/load
is "lmtpd version" 999.0 "$(lmtpd version | cut -d' ' -f2)"
newer_pid "$pid" || fail "the daemon was not restarted"
is "the program that runs" /usr/bin/lmtpd "$(readlink "/proc/$(main_pid)/exe")"
is "the sockets" "$inodes" "$(stat -c '%n %i' $generic $postfix /run/lmtpd/writer.sock)"
is "the configuration" "$sums" "$(sha256sum /etc/lmtpd/*)"
is "different messages that arrived" 4000 "$(grep -hs '^X-Load: ' -r $emma/new | sort -u | wc -l)"
is "mail from before that is missing" "" "$(find /home /srv/vmail -type f | sort | comm -23 /tmp/mails -)"
