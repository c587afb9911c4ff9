# Postfix, installed afterwards, gets its socket; a chrooted client reaches it
echo 'postfix postfix/main_mailer_type select Internet Site' | debconf-set-selections
apt-get -y -q --no-install-recommends --no-download install postfix >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install postfix"; }
within 10 "installing Postfix opened lmtpd-postfix.socket" active lmtpd-postfix.socket
is "$postfix" "postfix:postfix 600" "$(stat -c '%U:%G %a' $postfix)"
is "Debian's lmtp client is chrooted" y "$(postconf -Fh lmtp/unix/chroot)"
is "lmtpd.service, before the first mail" inactive "$(prop lmtpd.service ActiveState)"

# Login accounts, and addresses of a file whose mail one uid owns.
for name in alice bob carol; do
	useradd --create-home --shell /bin/bash $name
done
groupadd --gid 5000 vmail
useradd --uid 5000 --gid 5000 --home-dir /srv/vmail --create-home --shell /usr/sbin/nologin vmail
install -d -o vmail -g vmail /srv/vmail/example.net
for name in dora emma fred; do
	install -d -o vmail -g vmail /srv/vmail/example.net/$name
	echo "$name@example.net::5000:5000::/srv/vmail/example.net/$name::" >>/etc/lmtpd/users
done

# The lines of main.cf that README.Debian asks for.
postconf -e 'mydestination = example.org, localhost' \
	'mailbox_transport = lmtp:unix:lmtpd/lmtp.sock' \
	'virtual_mailbox_domains = example.net' \
	'virtual_transport = lmtp:unix:lmtpd/lmtp.sock'
# The machine has no syslogd.
postconf -e 'maillog_file = /var/log/mail.log' 'minimal_backoff_time = 2s' 'queue_run_delay = 2s'
systemctl restart postfix
show "Postfix is configured"
