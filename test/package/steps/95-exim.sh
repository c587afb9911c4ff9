# Exim instead of Postfix, with the examples as the package installs them
dpkg --purge lmtpd >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "dpkg --purge lmtpd"; }
mails=$(count /home /srv/vmail)
trap '[ $? = 0 ] || tail -n 20 /var/log/exim4/mainlog' EXIT
debconf-set-selections <<'END'
exim4-config exim4/dc_eximconfig_configtype select internet site; mail is sent and received directly using SMTP
exim4-config exim4/mailname string example.org
exim4-config exim4/dc_other_hostnames string example.org : example.net
exim4-config exim4/dc_local_interfaces string 127.0.0.1
exim4-config exim4/use_split_config boolean true
END
apt-get -y -q --no-install-recommends --no-download install exim4-daemon-light >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install exim4-daemon-light"; }
apt-get -y -q --no-install-recommends install /test/lmtpd.deb >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install lmtpd"; }
is "lmtpd-postfix.socket, with Exim" inactive "$(prop lmtpd-postfix.socket ActiveState)"
examples=/usr/share/doc/lmtpd/examples exim=/etc/exim4/conf.d
install -D -m 0644 $examples/exim.conf /etc/systemd/system/lmtpd.socket.d/exim.conf
systemctl daemon-reload
systemctl restart lmtpd.socket
is "$generic" "root:Debian-exim 660" "$(stat -c '%U:%G %a' $generic)"

# Login accounts: each file where its first lines say.
install -m 0644 $examples/exim/main $exim/main/000_lmtpd
install -m 0644 $examples/exim/router.local $exim/router/850_lmtpd
install -m 0644 $examples/exim/transport $exim/transport/30_lmtpd
install -m 0644 $examples/exim/retry $exim/retry/10_lmtpd
update-exim4.conf
systemctl restart exim4
exim4 -bt alice+lists@example.org | sed 's/^/   /'
mail alice@example.org bob+lists@example.org
within 20 "mail for login accounts" holds $((mails + 2)) /home /srv/vmail
id=$(sed -n 's/.* \([^ ]*\) [=-]> alice.* T=lmtpd.*/\1/p' /var/log/exim4/mainlog | tail -1)
is "recipients in the journal with LMTPD_QUEUE_ID=$id" 2 "$(journalctl -q -o cat LMTPD_QUEUE_ID="$id" LMTPD_STATUS=delivered | wc -l)"
is "transactions of them" 1 "$(journalctl -q -o json LMTPD_QUEUE_ID="$id" | sed 's/.*"LMTPD_SESSION":"\([^"]*\)".*/\1/' | sort -u | wc -l)"
is "$generic, once lmtpd runs" "root:Debian-exim 660" "$(stat -c '%U:%G %a' $generic)"

# Addresses of a file, and unknown ones refused at the door by a callout.
sed 's/= example.org/= example.net/' $examples/exim/main >$exim/main/000_lmtpd
echo 'CHECK_RCPT_LOCAL_ACL_FILE = /etc/exim4/lmtpd_acl' >>$exim/main/000_lmtpd
rm $exim/router/850_lmtpd
install -m 0644 $examples/exim/router.virtual $exim/router/050_lmtpd
install -m 0644 $examples/exim/transport.verify $exim/transport/30_lmtpd_verify
install -m 0644 $examples/exim/acl /etc/exim4/lmtpd_acl
update-exim4.conf
systemctl restart exim4
echo 'emma@example.net::5000:5000::/srv/vmail/example.net/emma::' >>/etc/lmtpd/users
cat >>/etc/lmtpd/lmtpd.toml <<'END'

[[listen]]
name = "lmtp-callout"
address = "tcp:127.0.0.1:2424"
END
lmtpd check | sed 's/^/   /'
systemctl restart lmtpd-writer.service lmtpd.service
dialog() { printf 'EHLO client\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<%s>\r\nQUIT\r\n' "$1" | exim4 -bhc 192.0.2.7 2>/dev/null; }
dialog emma@example.net | tr -d '\r' | grep -q '^250 Accepted' || { dialog emma@example.net; fail "a known user"; }
show "a known user is accepted at RCPT"
dialog nobody-here@example.net | tr -d '\r' | grep '^550' | sed 's/^/   an unknown one: /'
dialog nobody-here@example.net | tr -d '\r' | grep -q '^550' || { dialog nobody-here@example.net; fail "an unknown user"; }
mails=$(count /home /srv/vmail)
mail emma@example.net
within 20 "mail for an address of the file" holds $((mails + 1)) /home /srv/vmail
is "messages that wait in Exim's queue" 0 "$(exim4 -bpc)"
