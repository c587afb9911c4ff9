# the package alone: sockets are open, nothing runs
apt-get -y -q --no-install-recommends install /test/lmtpd.deb >/tmp/apt.log 2>&1 || { cat /tmp/apt.log; fail "apt install"; }
is "lmtpd.socket" active "$(prop lmtpd.socket ActiveState)"
is "lmtpd-writer.socket" active "$(prop lmtpd-writer.socket ActiveState)"
is "lmtpd-postfix.socket, without Postfix" inactive "$(prop lmtpd-postfix.socket ActiveState)"
is "lmtpd.service" inactive "$(prop lmtpd.service ActiveState)"
is "failed units" "" "$(systemctl --failed --plain --no-legend)"
is "$generic" "root:lmtpd 660" "$(stat -c '%U:%G %a' $generic)"
is "/run/lmtpd/writer.sock" "lmtpd:lmtpd 600" "$(stat -c '%U:%G %a' /run/lmtpd/writer.sock)"
is "/etc/lmtpd/users" "root:lmtpd 640" "$(stat -c '%U:%G %a' /etc/lmtpd/users)"
refuses "nobody may connect" setpriv --reuid=nobody --regid=nogroup --clear-groups \
	lmtpd send -f a@example.org --to $generic root@example.org </dev/null
out=$(setpriv --reuid=lmtpd --regid=lmtpd --init-groups lmtpd check 2>&1) || { echo "$out"; fail "lmtpd check"; }
show "lmtpd check finds the packaged configuration right"
for shell in bash-completion/completions/lmtpd zsh/vendor-completions/_lmtpd fish/vendor_completions.d/lmtpd.fish; do
	grep -q lmtpd /usr/share/$shell || fail "no $shell"
done
show "completions for bash, zsh and fish are there"
