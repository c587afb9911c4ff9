# what an operator asks: journal, status, explain, check, trace, metrics
field() { journalctl -q -o json "$@" | tail -1; }
value() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; } # KEY
id=$(sed -n 's/.*: \([0-9A-Za-z]*\): to=<bob+lists@example.org>.*status=sent.*/\1/p' /var/log/mail.log | tail -1)
[ -n "$id" ] || fail "no queue id in Postfix's log"
is "recipients in the journal with LMTPD_QUEUE_ID=$id" 1 "$(journalctl -q -o cat LMTPD_QUEUE_ID="$id" LMTPD_TO=bob+lists@example.org | wc -l)"
line=$(field _SYSTEMD_UNIT=lmtpd.service LMTPD_TO=alice@example.org)
for key in SESSION ID QUEUE_ID MESSAGE_ID FROM TO MAILBOX TRANSPORT SIZE STATUS CODE ENHANCED DUPLICATE AGAIN DELAY_LOOKUP DELAY_SPOOL DELAY_WRITE DELAY_SYNC FILE; do
	echo "$line" | grep -q "\"LMTPD_$key\":" || { echo "$line"; fail "no field LMTPD_$key"; }
done
show "the keys of lmtpd(8) that have a value are fields of the journal"
is "LMTPD_FILE is the file" 1 "$(ls "$(echo "$line" | value LMTPD_FILE)" | wc -l)"
is "refused, by LMTPD_STATUS and LMTPD_TO" 5.1.1 "$(field LMTPD_STATUS=refused LMTPD_TO=nobody-here@example.net | value LMTPD_ENHANCED)"
is "and its priority" 6 "$(field LMTPD_STATUS=refused | value PRIORITY)"

status=$(lmtpd status)
echo "$status" | sed 's/^/   | /'
for want in "^configuration  /etc/lmtpd/lmtpd.toml, read " "^listening " "lmtp unix:$postfix" "^writer         /run/lmtpd/writer.sock, [1-9]" \
	"requests: [1-9][0-9]* answered, 0 unavailable, 0 lost, 0 refused; 0 copies forbidden" "since the start +3 +0 +2 " "passwd-file /etc/lmtpd/users" "nobody-here@example.net  550 5.1.1"; do
	echo "$status" | grep -Eq -- "$want" || fail "lmtpd status: no \"$want\""
done
json=$(lmtpd status --json)
for want in '"version":"' '"totals":{"delivered":3,' '"writer":{"socket":"/run/lmtpd/writer.sock",' '"last_refused":\[{'; do
	echo "$json" | grep -q -- "$want" || { echo "$json"; fail "lmtpd status --json: no $want"; }
done
show "lmtpd status --json has the same"
refuses "nobody may ask" setpriv --reuid=nobody --regid=nogroup --clear-groups lmtpd status
is "systemctl status lmtpd-writer" "delivered" "$(prop lmtpd-writer.service StatusText | grep -o delivered)"

code=0
explained=$(lmtpd explain alice@example.org) || code=$?
echo "$explained" | sed 's/^/   | /'
is "lmtpd explain alice@example.org" 0 $code
echo "$explained" | grep -q 'reply     250 2.0.0' || fail "no 250"
code=0
lmtpd explain nobody-here@example.net >/dev/null || code=$?
is "lmtpd explain nobody-here@example.net" 67 $code
is "what explain says of alice's mailbox on disk" 1 "$(echo "$explained" | grep -c 'drwx------ .* /home/alice/Maildir$')"

lmtpd trace --recipient nobody-at-all >/tmp/trace 2>&1 &
tracer=$!
traced() { lmtpd send -f t@example.org --to $generic nobody-at-all@example.net </dev/null >/dev/null 2>&1; grep -q 'RCPT TO:<nobody-at-all@example.net>' /tmp/trace && grep -q '550 5.1.1' /tmp/trace; }
within 10 "lmtpd trace shows the dialog of a session" traced
kill $tracer

cp /etc/lmtpd/lmtpd.toml /tmp/lmtpd.toml
printf '\n[metrics]\naddress = "unix:/run/lmtpd/metrics.sock"\n' >>/etc/lmtpd/lmtpd.toml
systemctl reload lmtpd.service
scrape() { perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new(Peer => "/run/lmtpd/metrics.sock") or die; print $s "GET /metrics HTTP/1.0\r\n\r\n"; print while <$s>' >/tmp/metrics && grep -q '^HTTP/1.* 200' /tmp/metrics; }
within 5 "metrics are on a Unix socket" scrape
for want in 'lmtpd_recipients_total{outcome="delivered",transport="maildir"} 3' 'lmtpd_writer_requests_total{outcome="lost"} 0' \
	'lmtpd_writer_connections [1-9]' 'lmtpd_config_last_reload_successful 1' 'lmtpd_build_info{.*version="0.1.0"'; do
	grep -q "^$want" /tmp/metrics || { grep ^lmtpd /tmp/metrics; fail "metrics: no $want"; }
	show "$(grep "^$want" /tmp/metrics)"
done
cp /tmp/lmtpd.toml /etc/lmtpd/lmtpd.toml
systemctl reload lmtpd.service
