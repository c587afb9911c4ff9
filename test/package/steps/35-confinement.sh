# what the two processes may do
exposure() { systemd-analyze security --no-pager "$1" | sed -n 's/.*Overall exposure level.*: \([0-9.]*\) .*/\1/p'; }
at_most() { awk -v have="$2" -v most="$3" 'BEGIN { exit !(have != "" && have <= most) }' || fail "$1: $2 is more than $3"; show "$1: $2, at most $3"; }
at_most "systemd-analyze security lmtpd.service" "$(exposure lmtpd.service)" 1.5
at_most "systemd-analyze security lmtpd-writer.service" "$(exposure lmtpd-writer.service)" 2.5
for unit in lmtpd lmtpd-writer; do
	systemd-analyze verify --man=no $unit.service 2>&1 | grep -i lmtpd && fail "systemd-analyze verify $unit.service"
	show "systemd-analyze verify $unit.service: nothing to say"
done

pid=$(main_pid) writer=$(prop lmtpd-writer.service MainPID)
status() { sed -n "s/^$2:\t*//p" "/proc/$1/status"; }
is "front: user" lmtpd "$(ps -o user= -p "$pid")"
is "front: capabilities it has" 0000000000000000 "$(status "$pid" CapEff)"
is "front: capabilities it could ever have" 0000000000000000 "$(status "$pid" CapBnd)"
is "front: no new privileges" 1 "$(status "$pid" NoNewPrivs)"
is "front: seccomp filter" 2 "$(status "$pid" Seccomp)"
is "writer: capabilities it has (SETGID 0x40, SETUID 0x80)" 00000000000000c0 "$(status "$writer" CapEff)"
is "writer: capabilities it could ever have" 00000000000000c0 "$(status "$writer" CapBnd)"
is "writer: no new privileges" 1 "$(status "$writer" NoNewPrivs)"
is "writer: seccomp filter" 2 "$(status "$writer" Seccomp)"
is "writer: interfaces of its network" lo "$(nsenter -t "$writer" -n ls /sys/class/net 2>/dev/null | tr '\n' ' ' | sed 's/ $//')"
is "front: what it sees of /home" "" "$(ls -A "/proc/$pid/root/home")"
# Even root cannot, by the way of their mounts.
for process in "front $pid" "writer $writer"; do
	touch "/proc/${process#* }/root/etc/lmtpd/x" 2>/tmp/refusal && fail "${process% *}: writes in /etc"
	grep -q 'Read-only file system' /tmp/refusal || { cat /tmp/refusal; fail "${process% *}: /etc"; }
	show "${process% *}: /etc is read-only"
done
refuses "front, as its user: no mail of the file's users" setpriv --reuid=lmtpd --regid=lmtpd --clear-groups \
	ls /srv/vmail/example.net/dora/Maildir
for unit in lmtpd lmtpd-writer; do
	journalctl -q -u $unit.service --grep 'confined less' && fail "$unit could not give up what it does not need"
	show "$unit.service, by itself: $(journalctl -q -o cat -u $unit.service --grep '^confined' | tail -1)"
done
if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
	is "front: AppArmor" "lmtpd (complain)" "$(cat "/proc/$pid/attr/current")"
	is "writer: AppArmor" "lmtpd-writer (complain)" "$(cat "/proc/$writer/attr/current")"
else
	show "SKIPPED: this kernel has no AppArmor"
fi
