# homes outside /home, /srv and /var/mail: said by explain and check, mended by a drop-in
install -d /data/homes
useradd --home-dir /data/homes/zoe --create-home zoe
systemctl stop lmtpd-writer.service
lmtpd explain zoe@example.org >/tmp/explain || true
grep 'lmtpd writer is not running' /tmp/explain | sed 's/^ */   | /' | grep ReadWritePaths= || { cat /tmp/explain; fail "explain, while the writer does not run"; }
mail zoe@example.org
deferred() { journalctl -q -o json LMTPD_TO=zoe@example.org LMTPD_STATUS=deferred | grep -q 'read-only file system'; }
within 20 "mail is deferred, and the log says: read-only file system" deferred
code=0
lmtpd explain zoe@example.org >/tmp/explain || code=$?
is "lmtpd explain zoe@example.org" 75 $code
grep -F 'sees /data/homes/zoe read-only (ProtectSystem=strict)' /tmp/explain | sed 's/^ */   | /'
grep -q 'add ReadWritePaths=/data/homes/zoe to its service (systemctl edit lmtpd-writer)' /tmp/explain || { cat /tmp/explain; fail explain; }
lmtpd check >/tmp/check
sed 's/^/   | /' /tmp/check
grep -q 'mailbox.path: .*systemctl edit lmtpd-writer, \[Service\] ReadWritePaths=/data/homes' /tmp/check || fail "lmtpd check"
drop_in lmtpd-writer.service homes <<'END'
[Service]
ReadWritePaths=/data/homes
END
systemctl restart lmtpd-writer.service
postqueue -f
within 30 "with the drop-in it arrives" holds 1 /data/homes/zoe/Maildir/new
lmtpd check | grep -q ReadWritePaths && fail "lmtpd check still warns"
show "lmtpd check has nothing to say any more"
no_drop_in lmtpd-writer.service homes
userdel zoe
rm -r /data
systemctl restart lmtpd-writer.service
