# Runs a program beside a systemd-journald of its own, in a mount namespace whose
# /run is new: with-journal.sh DIRECTORY PROGRAM [ARGUMENT...]. The journal is
# written to DIRECTORY, and journald ends with the program.
set -eu
journal=$1
shift
mount --bind "$journal" /mnt
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
mount --bind /mnt /run/log/journal
printf '[Journal]\nReadKMsg=no\nAudit=no\nStorage=volatile\n' > /run/systemd/journald.conf.d/test.conf
env -u NOTIFY_SOCKET setpriv --pdeathsig KILL /lib/systemd/systemd-journald 2>/dev/null &
n=0
until [ -S /run/systemd/journal/socket ] && [ -n "$(ls "$journal")" ]; do
	n=$((n + 1))
	[ $n -lt 200 ] || { echo "systemd-journald does not start" >&2; exit 1; }
	sleep 0.05
done
exec "$@"
