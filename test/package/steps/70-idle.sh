# exit when idle, and start again with the next mail
cp /etc/lmtpd/lmtpd.toml /tmp/lmtpd.toml
printf '\n[limits]\nidle_exit = "1s"\n' >>/etc/lmtpd/lmtpd.toml
systemctl restart lmtpd.service
within 20 "lmtpd.service has left" inactive lmtpd.service
is "how" "success 0" "$(prop lmtpd.service Result) $(prop lmtpd.service ExecMainStatus)"
is "lmtpd-postfix.socket" listening "$(prop lmtpd-postfix.socket SubState)"
/test/load -socket $postfix -n 10 -workers 2 -to emma@example.net >/tmp/load || { cat /tmp/load; fail "load"; }
sed 's/^/   /' /tmp/load
within 20 "it has left again" inactive lmtpd.service
cp /tmp/lmtpd.toml /etc/lmtpd/lmtpd.toml
systemctl start lmtpd.service
