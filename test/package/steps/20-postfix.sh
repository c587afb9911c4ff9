# Postfix, installed afterwards, gets its socket; a chrooted client reaches it
echo 'postfix postfix/main_mailer_type select Internet Site' | debconf-set-selections
apt-get -y -q --no-install-recommends --no-download install postfix >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install postfix"; }
within 10 "installing Postfix opened lmtpd-postfix.socket" active lmtpd-postfix.socket
is "$postfix" "postfix:postfix 600" "$(stat -c '%U:%G %a' $postfix)"
is "Debian's lmtp client is chrooted" y "$(postconf -Fh lmtp/unix/chroot)"
is "lmtpd.service, before the first mail" inactive "$(prop lmtpd.service ActiveState)"
site
show "Postfix is configured"
