# purge leaves no file but mail
mails=$(count /home /srv/vmail)
apt-get -y -q purge lmtpd >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt purge"; }
left() {
	find / -xdev \( -name '*lmtpd*' -o -user lmtpd -o -user lmtpd-writer -o -group lmtpd -o -group lmtpd-writer \) \
		! -path '/test/*' ! -path '/tmp/*' ! -path '/proc/*' 2>/dev/null
	find /run \( -name '*lmtpd*' -o -user lmtpd -o -user lmtpd-writer \) 2>/dev/null
	systemctl list-unit-files --no-legend 'lmtpd*'
}
is "files that are left" "" "$(left)"
is "mail" "$mails" "$(count /home /srv/vmail)"
systemctl --failed --plain --no-legend | grep lmtpd && fail "failed units are left"
show "no failed unit is left"
