#!/bin/bash
# Shows on a machine with Debian's own kernel what a container cannot: AppArmor in
# complain and in enforce mode, Landlock as that kernel has it, fs.protected_* and the
# races that it is about, disk quota. It boots Debian in qemu with the package and
# Postfix installed, and runs some of ../package/steps and all of steps/ there.
# "make test-vm" calls this; it takes three minutes without hardware virtualisation
# (and two more the first time), wants root, and installs what it needs with apt-get.
#
#     test/vm/run.sh [STEP...]      # steps by name or number; none: all
#
# SUITE=trixie takes another Debian. ACCEL=kvm or tcg; without, what works. KEEP=1
# leaves the machine's files. The root file system is kept in build/vm-test, and
# nothing else.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/test/vm
suite=${SUITE:-bookworm}
. "$top/test/package/host.sh"
vm=$top/build/vm-test
base=$vm/root-$suite
mirror=${MIRROR:-http://deb.debian.org/debian}

[ "$(id -u)" = 0 ] || skip "not root: no root file system can be made"
command -v apt-get >/dev/null || skip "no apt-get: this is about a Debian package"
[ "$(dpkg --print-architecture)" = amd64 ] || skip "no kernel and no machine for this architecture"

need mmdebstrap mmdebstrap
need qemu-system-x86_64 qemu-system-x86
need mkfs.ext4 e2fsprogs
need_build
install_needs

# Mounts are seen here only, and go when this script does.
if [ -z "${LMTPD_VM_NAMESPACE:-}" ]; then
	LMTPD_VM_NAMESPACE=1 exec unshare --mount "$0" "$@"
fi

mkdir -p "$vm" "$work"
if [ ! -e "$base/.complete" ]; then
	say "making Debian $suite with its kernel, once"
	rm -rf --one-file-system "$base"
	# Postfix is installed here, where it takes less time.
	mmdebstrap --variant=apt --components=main --skip=cleanup/apt,cleanup/apt/lists \
		--include=systemd,systemd-sysv,dbus,procps,iproute2,passwd,apparmor,apparmor-utils,quota,postfix,linux-image-cloud-amd64 \
		--essential-hook='echo postfix postfix/main_mailer_type select Internet Site | chroot "$1" debconf-set-selections' \
		--customize-hook='touch "$1/.complete"' \
		"$suite" "$base" "$mirror"
fi

run=$(mktemp -d "$vm/run.XXXXXX")
machine=
cleanup() {
	[ -z "$machine" ] || kill "$machine" 2>/dev/null || true
	[ -n "${KEEP:-}" ] || rm -rf "$run"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

build_package

say "the disks"
test=$run/test
mkdir -p "$test/steps" "$test/maildir" "$test/writer"
for step in 30-mail 35-confinement 36-landlock 60-reload 70-idle 75-one-user; do
	cp "$top/test/package/steps/$step.sh" "$test/steps/"
done
cp "$here"/steps/*.sh "$test/steps/"
cp "$top"/test/package/{guest,lib}.sh "$here/apparmor.sh" "$test/"
cp "$debs"/first/lmtpd_*.deb "$test/lmtpd.deb"
printf '%s\n' "$@" >"$test/only"
(
	cd "$top"
	export CGO_ENABLED=0 GOTOOLCHAIN=local
	go build -o "$test/load" ./test/package/load
	go build -o "$test/inject" ./test/package/inject
	for package in delivery/maildir delivery/writer confine; do
		go test -c -o "$test/${package##*/}.test" "./$package"
		mkdir -p "$test/${package##*/}"
		[ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$test/${package##*/}/"
	done
)
# Files are linked, not copied: what is written has to be a new file.
cp -al "$base" "$run/root"
rm "$run/root/etc/hostname" "$run/root/etc/fstab" 2>/dev/null || true
echo mail.example.org >"$run/root/etc/hostname"
mkdir -p "$run/root/test" "$run/root/etc/systemd/system/default.target.wants"
cat >"$run/root/etc/fstab" <<'END'
/dev/vda /     ext4 defaults 0 0
/dev/vdb /test ext4 defaults 0 0
END
cat >"$run/root/etc/systemd/system/package-test.service" <<'END'
[Unit]
After=multi-user.target
RequiresMountsFor=/test
SuccessAction=poweroff
FailureAction=poweroff
[Service]
Type=oneshot
ExecStart=/test/guest.sh
ExecStopPost=/bin/sh -c 'sync; echo "result $$SERVICE_RESULT" >/dev/ttyS1'
StandardOutput=file:/dev/ttyS1
StandardError=inherit
TimeoutStartSec=infinity
END
ln -s ../package-test.service "$run/root/etc/systemd/system/default.target.wants/"
ln -sf /dev/null "$run/root/etc/systemd/system/serial-getty@ttyS0.service"
mkfs.ext4 -q -F -d "$run/root" "$run/root.ext4" 4G >/dev/null
mkfs.ext4 -q -F -d "$test" "$run/test.ext4" 512M >/dev/null
# Its quota are the file system's own, as Debian's quota(8) recommends.
mkfs.ext4 -q -F -O quota -E quotatype=usrquota:grpquota "$run/quota.ext4" 64M >/dev/null
cp "$base"/boot/vmlinuz-* "$run/vmlinuz"
cp "$base"/boot/initrd.img-* "$run/initrd"
rm -rf "$run/root"

boot() { # ACCELERATOR OPTION...
	local accel=$1 cpu=max
	shift
	[ "$accel" != kvm ] || cpu=host
	exec qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -smp 2 -m 1G -nodefaults -no-reboot -display none \
		-kernel "$run/vmlinuz" -initrd "$run/initrd" -append "root=/dev/vda rw console=ttyS0 quiet" \
		-device virtio-rng-pci -serial file:"$run/console" "$@"
}

# A kernel says something at once, or it never will: some hosts have /dev/kvm and no
# processor that does it.
kvm_works() {
	[ -w /dev/kvm ] || return 1
	(boot kvm) >/dev/null &
	machine=$!
	for _ in $(seq 100); do
		[ -s "$run/console" ] && break
		kill -0 $machine || break
		sleep 0.1
	done
	kill $machine || true
	wait $machine || true
	machine=
	[ -s "$run/console" ]
}
accel=${ACCEL:-}
if [ -z "$accel" ]; then
	accel=tcg
	if kvm_works 2>/dev/null; then accel=kvm; fi
	rm -f "$run/console"
fi

say "booting Debian $suite with $(cd "$base/boot" && echo vmlinuz-*), by $accel"
: >"$run/output"
(boot "$accel" -serial file:"$run/output" \
	-drive file="$run/root.ext4",if=virtio,format=raw,cache=unsafe \
	-drive file="$run/test.ext4",if=virtio,format=raw,cache=unsafe \
	-drive file="$run/quota.ext4",if=virtio,format=raw,cache=unsafe) 2>"$run/qemu" &
machine=$!
limit=$((SECONDS + 1800))
tail --quiet -n +1 -F --pid=$machine "$run/output" 2>/dev/null | sed -u 's/\r$//' &
while kill -0 $machine 2>/dev/null; do
	[ $SECONDS -lt $limit ] || { tail -20 "$run/console"; die "the machine has not ended in half an hour"; }
	sleep 0.5
done
wait
machine=
grep -q '^result success' "$run/output" || { tail -20 "$run/console" "$run/qemu"; die "a step (see above; KEEP=1 keeps $run)"; }
say "all steps passed"
