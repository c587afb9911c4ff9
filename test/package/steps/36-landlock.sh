# Landlock is in force in both processes
pid=$(main_pid) writer=$(prop lmtpd-writer.service MainPID)
uname -r | sed 's/^/   kernel /'
for unit in lmtpd lmtpd-writer; do
	version=$(journalctl -q -o verbose -u $unit.service --grep '^confined' | sed -n 's/^ *LMTPD_LANDLOCK=//p' | tail -1)
	[ "${version:-0}" -ge 2 ] || fail "$unit: version \"$version\" of Landlock"
	show "$unit.service: version of Landlock that it uses: $version"
done

# inject makes a call in the process itself, so that what answers is what holds it.
# Permissions and mounts would let it, which is looked at first; seccomp says EPERM.
if [ ! -x /test/inject ]; then
	show "SKIPPED: no inject for this architecture"
	exit 0
fi
is "the front's /tmp is for everybody" "1777" "$(stat -c %a "/proc/$pid/root/tmp")"
touch "/proc/$pid/root/tmp/by-root"
is "the front writes in its state directory" ok "$(/test/inject "$pid" open /var/lib/lmtpd/probe)"
is "the front writes in its /tmp" EACCES "$(/test/inject "$pid" open /tmp/probe)"
install -m 0644 /dev/null /srv/readable
cat "/proc/$pid/root/srv/readable"
is "the front reads what everybody may read, in /etc" ok "$(/test/inject "$pid" read /etc/passwd)"
is "the front reads what everybody may read, in /srv" EACCES "$(/test/inject "$pid" read /srv/readable)"

install -d -m 1777 /srv/probe
mkfifo "/proc/$writer/root/srv/probe/by-root"
is "the writer makes a file in a directory for everybody" ok "$(/test/inject "$writer" open /srv/probe/file)"
is "the writer makes a FIFO there" EACCES "$(/test/inject "$writer" fifo /srv/probe/fifo)"
rm -r /srv/probe /srv/readable /var/lib/lmtpd/probe "/proc/$pid/root/tmp/by-root"
is "they are the same processes still" "$pid $writer" "$(main_pid) $(prop lmtpd-writer.service MainPID)"
mails=$(count /home/alice)
mail alice@example.org
within 20 "and deliver" holds $((mails + 1)) /home/alice
if [ -x /test/confine.test ]; then
	cd /test/confine
	/test/confine.test -test.v >/tmp/confine 2>&1 || { cat /tmp/confine; fail "tests of package confine"; }
	is "tests of package confine on this kernel that are skipped" "" "$(sed -n 's/^ *--- SKIP: \([^ ]*\).*/\1/p' /tmp/confine | grep -v -e 'Child$' -e '^TestCgo$' | tr '\n' ' ')"
fi
