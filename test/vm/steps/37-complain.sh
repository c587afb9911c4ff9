# AppArmor, complain mode: nothing that the profiles do not foresee
. /test/apparmor.sh
cat >>/etc/lmtpd/lmtpd.toml <<'END'

[mailbox]
create_folders = true
quota = "100 MiB"

[[filing]]
field = "X-Spam-Flag"
value = "YES"
folder = "Junk"
create = true

[metrics]
address = "unix:/run/lmtpd/metrics.sock"
END
lmtpd check
systemctl restart lmtpd-writer.service lmtpd.service
is "front: AppArmor" "lmtpd (complain)" "$(cat "/proc/$(main_pid)/attr/current")"
everything
is "writer: AppArmor" "lmtpd-writer (complain)" "$(cat "/proc/$(prop lmtpd-writer.service MainPID)/attr/current")"
unexpected complain
