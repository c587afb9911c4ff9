# Landlock as Debian's kernel has it, in force in both processes
pid=$(main_pid) writer=$(prop lmtpd-writer.service MainPID)
uname -r | sed 's/^/   kernel /'
for unit in lmtpd lmtpd-writer; do
	version=$(journalctl -q -o verbose -u $unit.service --grep '^confined' | sed -n 's/^ *LMTPD_LANDLOCK=//p' | tail -1)
	[ "${version:-0}" -ge 2 ] || fail "$unit: version \"$version\" of Landlock"
	show "$unit.service: version of Landlock that it uses: $version"
done

# The call is made in the process itself, so that what answers is what holds it.
# Permissions and name space would let it; seccomp would say EPERM.
as_front() { nsenter -t "$pid" -m setpriv --reuid=lmtpd --regid=lmtpd --clear-groups "$@"; }
as_front touch /tmp/by-another /var/lib/lmtpd/by-another
as_front rm /tmp/by-another /var/lib/lmtpd/by-another
show "another process may, as the front's user, write in its /tmp and state directory"
is "the front writes in its state directory" ok "$(/test/inject "$pid" open /var/lib/lmtpd/probe)"
is "the front writes in its /tmp" EACCES "$(/test/inject "$pid" open /tmp/probe)"
install -m 0644 /dev/null /srv/readable
as_front cat /srv/readable
is "the front reads what everybody may read, in /etc" ok "$(/test/inject "$pid" read /etc/passwd)"
is "the front reads what everybody may read, in /srv" EACCES "$(/test/inject "$pid" read /srv/readable)"

install -d -m 1777 /srv/probe
nsenter -t "$writer" -m setpriv --reuid=lmtpd-writer --regid=lmtpd-writer --clear-groups mkfifo /srv/probe/by-another
show "another process may, as the writer's user, make a FIFO in a directory for everybody"
is "the writer makes a file there" ok "$(/test/inject "$writer" open /srv/probe/file)"
is "the writer makes a FIFO there" EACCES "$(/test/inject "$writer" fifo /srv/probe/fifo)"
rm -r /srv/probe /srv/readable /var/lib/lmtpd/probe
is "they are the same processes still" "$pid $writer" "$(main_pid) $(prop lmtpd-writer.service MainPID)"
mail alice@example.org
within 20 "and deliver" holds 2 /home/alice/Maildir/new

cd /test/confine
/test/confine.test -test.v >/tmp/confine 2>&1 || { cat /tmp/confine; fail "tests of package confine"; }
is "tests of package confine on this kernel that are skipped" "" "$(sed -n 's/^ *--- SKIP: \([^ ]*\).*/\1/p' /tmp/confine | grep -v Child$ | tr '\n' ' ')"
