# one mail user: one process, without any capability
cp /etc/lmtpd/lmtpd.toml /tmp/lmtpd.toml
sed -i '/^\[writer\]/,$d' /etc/lmtpd/lmtpd.toml
echo 'gina@example.net:::::/srv/vmail/example.net/gina::' >>/etc/lmtpd/users
install -d -o vmail -g vmail /srv/vmail/example.net/gina
drop_in lmtpd.service one-user </usr/share/doc/lmtpd/examples/one-user.conf
systemctl disable -q --now lmtpd-writer.socket lmtpd-writer.service 2>/dev/null
systemctl restart lmtpd.service
mail gina@example.net
gina=/srv/vmail/example.net/gina/Maildir
within 20 "gina, whose record names no owner, has mail" holds 1 $gina/new
is "its owner" "vmail:vmail 600" "$(stat -c '%U:%G %a' $gina/new/*)"
is "$generic, for members of the group still" "root:lmtpd 660" "$(stat -c '%U:%G %a' $generic)"
is "/run/lmtpd/status.sock" "vmail:vmail 600" "$(stat -c '%U:%G %a' /run/lmtpd/status.sock)"
is "processes of lmtpd" "1 vmail" "$(ps -C lmtpd -o user= | sort | uniq -c | sed 's/^ *//')"
is "its capabilities" "0000000000000000 0000000000000000" "$(sed -n 's/^Cap\(Eff\|Bnd\):\t//p' "/proc/$(main_pid)/status" | tr '\n' ' ' | sed 's/ $//')"
score=$(systemd-analyze security --no-pager lmtpd.service | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p')
awk -v s="$score" 'BEGIN { exit !(s != "" && s <= 1.5) }' || fail "systemd-analyze security: $score"
show "systemd-analyze security: $score, at most 1.5"
no_drop_in lmtpd.service one-user
cp /tmp/lmtpd.toml /etc/lmtpd/lmtpd.toml
sed -i /^gina@/d /etc/lmtpd/users
systemctl enable -q --now lmtpd-writer.socket
systemctl restart lmtpd.service
