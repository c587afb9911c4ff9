#!/bin/bash
# Shows the Debian package on a booted systemd: builds it twice, boots Debian in a
# container of its own with systemd as PID 1, and runs steps/ there, in the order of
# their numbers. Only the package, Postfix and in the end Exim are installed. "make test-package"
# calls this; it takes minutes, wants root, and installs what it needs with apt-get.
#
#     test/package/run.sh [STEP...]      # steps by name or number; none: all
#
# SUITE=trixie takes another Debian. KEEP=1 leaves the container's files. The root
# file system is made once and kept in build/package-test.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/test/package
suite=${SUITE:-bookworm}
. "$here/host.sh"
base=$work/root-$suite
mirror=${MIRROR:-http://deb.debian.org/debian}

[ "$(id -u)" = 0 ] || skip "not root: no container can be booted"
command -v apt-get >/dev/null || skip "no apt-get: this is about a Debian package"

need mmdebstrap mmdebstrap
need systemd-nspawn systemd-container
need piuparts piuparts
need autopkgtest autopkgtest
need apparmor_parser apparmor
need lintian lintian
need_build
install_needs

# Mounts are seen here only, and go when this script does.
if [ -z "${LMTPD_PACKAGE_NAMESPACE:-}" ]; then
	LMTPD_PACKAGE_NAMESPACE=1 exec unshare --mount "$0" "$@"
fi

mkdir -p "$work"
# Postfix and Exim are fetched and not installed: the steps do that, without a network.
installed=systemd,systemd-sysv,dbus,procps,iproute2,passwd
fetched='postfix exim4-daemon-light'
if [ "$(cat "$base/.complete" 2>/dev/null)" != "$installed $fetched" ]; then
	say "making Debian $suite, once"
	rm -rf --one-file-system "$base"
	mmdebstrap --variant=apt --include="$installed" --components=main \
		--skip=cleanup/apt,cleanup/apt/lists \
		--customize-hook="for p in $fetched; do chroot \"\$1\" apt-get -y -q --no-install-recommends --download-only install \$p; done" \
		--customize-hook="echo '$installed $fetched' >\"\$1/.complete\"" \
		"$suite" "$base" "$mirror"
fi

run=$(mktemp -d "$work/run.XXXXXX")
cleanup() {
	umount --recursive --lazy "$run"/*/root 2>/dev/null || true
	[ -n "${KEEP:-}" ] || rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mkdir "$run/test"

build_package
[ $# != 0 ] || check_package
build_next

overlay() { # NAME: the root, written to in $run/NAME
	mkdir -p "$run/$1"/{upper,work,root}
	mount -t overlay overlay -o "lowerdir=$base,upperdir=$run/$1/upper,workdir=$run/$1/work" "$run/$1/root"
}

if [ $# = 0 ]; then
	say "piuparts: installed, removed and purged, it leaves nothing"
	piuparts --existing-chroot="$base" --distribution="$suite" --mirror="$mirror main" --no-eatmydata \
		--scriptsdir=/etc/piuparts/scripts "$debs"/first/lmtpd_*.deb >"$run/piuparts.log" 2>&1 || { tail -40 "$run/piuparts.log"; die piuparts; }
	grep -E 'PASS|WARN' "$run/piuparts.log"

	say "autopkgtest: the tests of the package, without systemd"
	overlay chroot
	mount --rbind /dev "$run/chroot/root/dev"
	cp -L /etc/resolv.conf "$run/chroot/root/etc/resolv.conf"
	mkdir "$run/source"
	git -C "$top" archive "$LMTPD_DEB_COMMIT" | tar -x -C "$run/source"
	cp -a "$run/source/packaging/debian" "$run/source/debian"
	# No process of theirs outlives them.
	# shellcheck disable=SC2016
	unshare --pid --fork --kill-child --mount-proc sh -c \
		'mount -t proc proc "$1/proc" && exec autopkgtest -B "$2" "$3" -- chroot "$1"' \
		sh "$run/chroot/root" "$debs"/first/lmtpd_*.deb "$run/source" >"$run/autopkgtest.log" 2>&1 ||
		{ tail -60 "$run/autopkgtest.log"; die autopkgtest; }
	sed -n '/@@@@ summary/,/^autopkgtest/p' "$run/autopkgtest.log" | grep PASS
fi

cp -r "$here"/steps "$here"/guest.sh "$here"/lib.sh "$run/test/"
cp "$debs"/first/lmtpd_*.deb "$run/test/lmtpd.deb"
cp "$debs"/next/lmtpd_*.deb "$run/test/lmtpd-next.deb"
(cd "$top" && CGO_ENABLED=0 GOTOOLCHAIN=local go build -o "$run/test/" ./test/package/load ./test/package/inject)
printf '%s\n' "$@" >"$run/test/only"

say "booting Debian $suite"
overlay machine
root=$run/machine/root
cat >"$root/etc/systemd/system/package-test.service" <<'END'
[Unit]
After=multi-user.target
SuccessAction=exit
FailureAction=exit
FailureActionExitStatus=1
[Service]
Type=oneshot
ExecStart=/test/guest.sh
StandardOutput=append:/test/output
StandardError=inherit
TimeoutStartSec=infinity
END
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../package-test.service "$root/etc/systemd/system/default.target.wants/"
# A machine of its own name, without a login on the console.
echo mail.example.org >"$root/etc/hostname"
ln -sf /dev/null "$root/etc/systemd/system/console-getty.service"
# Where /run is on a disk, nspawn does not dare to clean up behind itself.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn
status=0
# What a container may not do by default, and the units may: Landlock.
systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
	--system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self" \
	--machine=mail --directory="$root" --bind="$run/test:/test" --boot >"$run/console" 2>&1 &
container=$!
tail --quiet -n +1 -F --pid=$container "$run/test/output" 2>/dev/null || true
status=0
wait $container || status=$?
[ -e "$run/test/output" ] || cat "$run/console"
[ "$status" = 0 ] || die "a step (see above; KEEP=1 keeps $run)"
say "all steps passed"
