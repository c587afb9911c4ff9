# kill -9 of the one process and the other: what was acknowledged is there, and nobody is refused
emma=/srv/vmail/example.net/emma/Maildir
rm -rf $emma
kill_both() {
	while sleep 1.5; do
		systemctl kill --signal=KILL lmtpd.service && echo killed >>/tmp/kills
		sleep 1.5
		systemctl kill --signal=KILL lmtpd-writer.service && echo killed >>/tmp/kills
	done
}
kill_both &
killer=$!
: >/tmp/kills
ok=0
/test/load -strict=false -socket $postfix -n 3000 -rate 250 -workers 8 -to emma@example.net >/tmp/load || ok=$?
kill $killer
wait $killer 2>/dev/null || true
sed 's/^/   /' /tmp/load
[ $ok = 0 ] || fail "load"
show "killed meanwhile: $(wc -l </tmp/kills)"
[ "$(wc -l </tmp/kills)" -ge 3 ] || fail "too few to show anything"
is "different messages that arrived" 3000 "$(grep -hs '^X-Load: ' -r $emma/new | sort -u | wc -l)"
show "of these twice, where the client could not know: $(($(count $emma/new) - 3000))"
within 10 "lmtpd.service runs" active lmtpd.service
