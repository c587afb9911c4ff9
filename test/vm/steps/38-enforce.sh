# AppArmor, enforce mode: everything works, and nothing else
. /test/apparmor.sh
aa-enforce /etc/apparmor.d/lmtpd | sed 's/^/   /'
systemctl restart lmtpd-writer.service lmtpd.service
is "front: AppArmor" "lmtpd (enforce)" "$(cat "/proc/$(main_pid)/attr/current")"
everything
is "writer: AppArmor" "lmtpd-writer (enforce)" "$(cat "/proc/$(prop lmtpd-writer.service MainPID)/attr/current")"
unexpected enforce
