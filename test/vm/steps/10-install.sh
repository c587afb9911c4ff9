# the package beside Postfix: its sockets are open
dpkg -i /test/lmtpd.deb >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "dpkg -i"; }
for socket in lmtpd lmtpd-writer lmtpd-postfix; do
	is "$socket.socket" active "$(prop $socket.socket ActiveState)"
done
is "lmtpd.service" inactive "$(prop lmtpd.service ActiveState)"
is "profiles that the kernel has" "lmtpd (complain) lmtpd-alone (complain) lmtpd-writer (complain)" "$(grep '^lmtpd' /sys/kernel/security/apparmor/profiles | sort | tr '\n' ' ' | sed 's/ $//')"
is "fs.protected_symlinks, fs.protected_hardlinks" "1 1" "$(sysctl -n fs.protected_symlinks fs.protected_hardlinks | tr '\n' ' ' | sed 's/ $//')"
site
show "Postfix is configured"
