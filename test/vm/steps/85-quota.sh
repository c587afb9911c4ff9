# a full disk quota is 452 4.2.2, for its owner alone
modprobe quota_v2
install -d /srv/disk
mount -o usrquota,grpquota /dev/vdc /srv/disk
for name in quinn rosa; do
	useradd --home-dir /srv/disk/$name --create-home --shell /bin/bash $name
done
send() { head -c "$1" /dev/zero | tr '\0' x | fold -w 70 | { printf 'Subject: %s\n\n' "$RANDOM$RANDOM"; cat; } | lmtpd send -f root@example.org --to $generic "${@:2}" 2>&1; }
send 1000 quinn@example.org >/dev/null || fail "there is room"
is "quinn's mail" 1 "$(count /srv/disk/quinn/Maildir/new)"
setquota -u quinn 256 256 0 0 /srv/disk
out=$(send 1000000 quinn@example.org rosa@example.org) || true
echo "$out" | grep -E ' (250|452) |^(250|452)|: ' | tail -4 | sed 's/^/   /'
echo "$out" | grep -q '452 4\.2\.2' || { echo "$out"; fail "no 452 4.2.2"; }
is "quinn's mail" 1 "$(count /srv/disk/quinn/Maildir/new)"
is "what is left of the attempt" 0 "$(count /srv/disk/quinn/Maildir/tmp)"
is "rosa's, of the same message" 1 "$(count /srv/disk/rosa/Maildir/new)"
line=$(journalctl -q -o json -u lmtpd.service LMTPD_ENHANCED=4.2.2 LMTPD_TO=quinn@example.org | tail -1)
echo "$line" | grep -q 'disk quota exceeded' || fail "no line in the journal: $line"
show "the journal says: $(echo "$line" | sed 's/.*"LMTPD_ERROR":"\([^"]*\)".*/\1/')"

setquota -u quinn 0 0 1 1 /srv/disk # files
out=$(send 1000 quinn@example.org) || true
echo "$out" | grep -q '452 4\.2\.2' || { echo "$out"; fail "files: no 452 4.2.2"; }
show "the same with a quota of files"

setquota -u quinn 256 256 0 0 /srv/disk
{ printf 'Subject: by Postfix\n\n'; head -c 1000000 /dev/zero | tr '\0' x | fold -w 70; } | sendmail -f root@example.org quinn@example.org
within 20 "Postfix keeps it" grep -q 'to=<quinn@example.org>.*dsn=4.2.2, status=deferred.*452' /var/log/mail.log
setquota -u quinn 0 0 0 0 /srv/disk
postqueue -f
within 30 "and it arrives once there is room" holds 2 /srv/disk/quinn/Maildir/new
