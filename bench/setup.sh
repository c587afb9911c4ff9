#!/bin/sh
# Installs what lmtpd is measured against, from Debian's packages. Harmless to run
# again: it returns at once when nothing is missing. Nothing is started: the
# benchmark runs its own copies, with configurations and directories of their own.
set -eu

# One package per line, with a path that shows it is there.
packages='
dovecot-core      /usr/sbin/dovecot
dovecot-lmtpd     /usr/lib/dovecot/lmtp
postfix           /usr/sbin/postfix
python3-aiosmtpd  /usr/lib/python3/dist-packages/aiosmtpd
e2fsprogs         /usr/sbin/mkfs.ext4
mount             /usr/sbin/losetup
'

missing=
while read -r package path; do
	[ -n "$package" ] || continue
	[ -e "$path" ] || missing="$missing $package"
done <<END
$packages
END
if [ -z "$missing" ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "bench/setup.sh: only root can install$missing" >&2
	exit 1
fi

# A package must not start a daemon of the machine; invoke-rc.d asks this file.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
case "$missing" in
*postfix*)
	echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
	;;
esac

install() {
	DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
		apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $missing
}
# The package lists of a fresh machine are empty or old.
install || { apt-get -q update && install; }
