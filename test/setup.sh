#!/bin/sh
# Installs the programs that the tests in this directory talk to. Harmless to
# run again: it returns at once when nothing is missing.
#
# It needs root (or sudo without a password) and Debian's apt. Elsewhere it
# says what is missing and succeeds: those tests then report themselves
# skipped, or fail where LMTPD_TEST_REQUIRE=1 is set.
set -eu

# One Debian package per line, with a path that shows it is there.
# A test's need() uses the programs; keep the two in step.
packages='
gcc                /usr/bin/gcc
libc6-dev          /usr/include/stdio.h
postfix            /usr/sbin/postfix
swaks              /usr/bin/swaks
msmtp              /usr/bin/msmtp
fetchmail          /usr/bin/fetchmail
node-nodemailer    /usr/share/nodejs/nodemailer
python3            /usr/bin/python3
python3-aiosmtpd   /usr/lib/python3/dist-packages/aiosmtpd
strace             /usr/bin/strace
e2fsprogs          /usr/sbin/mkfs.ext4
xfsprogs           /usr/sbin/mkfs.xfs
btrfs-progs        /usr/bin/btrfs
libgnutls-dane0    /usr/share/doc/libgnutls-dane0
libidn12           /usr/share/doc/libidn12
libsasl2-modules   /usr/share/doc/libsasl2-modules
libnsl2            /usr/share/doc/libnsl2
libnss-extrausers  /usr/share/doc/libnss-extrausers
prometheus         /usr/bin/promtool
dovecot-core       /usr/bin/doveconf
dovecot-imapd      /usr/lib/dovecot/imap
dovecot-lmtpd      /usr/lib/dovecot/lmtp
mutt               /usr/bin/mutt
mblaze             /usr/bin/mlist
notmuch            /usr/bin/notmuch
isync              /usr/bin/mbsync
bsdutils           /usr/bin/script
iproute2           /usr/bin/ss
mandoc             /usr/bin/mandoc
'

missing=
while read -r package path; do
	[ -n "$package" ] || continue
	[ -e "$path" ] || missing="$missing $package"
done <<END
$packages
END

# Exim is only unpacked: as a package it would replace Postfix. The program is
# setuid, so only root may enter the directory.
exim=/var/cache/lmtpd-test/exim
if [ -z "$missing" ] && [ -e "$exim/usr/sbin/exim4" ]; then
	exit 0
fi

as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root='sudo -n'
	if ! $as_root true 2>/dev/null; then
		echo "test/setup.sh: not root and no sudo; missing:$missing (their tests will be skipped)" >&2
		exit 0
	fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "test/setup.sh: no apt-get here; missing:$missing (their tests will be skipped)" >&2
	exit 0
fi

# The tests start what they need themselves, in directories of their own. A
# package must not start a daemon of the machine; invoke-rc.d asks this file.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap '$as_root rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
	$as_root chmod 755 "$policy"
fi

# Postfix without a configuration never starts, not even at the next boot.
case "$missing" in
*postfix*)
	if command -v debconf-set-selections >/dev/null 2>&1; then
		echo 'postfix postfix/main_mailer_type select No configuration' |
			$as_root debconf-set-selections
	fi
	;;
esac

install() {
	$as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 \
		apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $missing
}
# The package lists of a fresh machine are empty or old.
if [ -n "$missing" ]; then
	install || { $as_root apt-get -q update && install; }
fi

if [ ! -e "$exim/usr/sbin/exim4" ]; then
	$as_root sh -euc '
		mkdir -p "${1%/*}"
		work=$(mktemp -d "$1.XXXXXX")
		trap "rm -rf \"$work\"" EXIT
		cd "$work"
		packages="exim4-base exim4-config exim4-daemon-light"
		apt-get -q -o APT::Sandbox::User=root download $packages ||
			{ apt-get -q update && apt-get -q -o APT::Sandbox::User=root download $packages; }
		for deb in *.deb; do dpkg -x "$deb" root; done
		rm -rf root/etc
		chmod 700 root
		mv -T root "$1" || [ -e "$1/usr/sbin/exim4" ]
	' sh "$exim"
fi
