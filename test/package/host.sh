# What run.sh here and in ../vm share: the package of one commit, made and checked
# once, in build/package-test. Sourced with top set to the top of the source.

work=$top/build/package-test

say() { printf '\n==== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# What cannot run here is skipped aloud; LMTPD_TEST_REQUIRE=1 makes that a failure.
skip() {
	[ "${LMTPD_TEST_REQUIRE:-}" != 1 ] || die "$*"
	printf 'SKIPPED: %s\n' "$*" >&2
	exit 0
}

missing=
need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null || missing="$missing $2"
}

# install_needs installs what need has missed.
install_needs() {
	[ -n "$missing" ] || return 0
	say "installing$missing"
	# shellcheck disable=SC2086
	local install="env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 install --no-install-recommends $missing"
	$install || { apt-get -q update && $install; }
}

need_build() {
	need dpkg-buildpackage dpkg-dev
	need dh debhelper
	need dh_apparmor dh-apparmor
}

build() { # DIRECTORY
	mkdir -p "$1"
	"$top/packaging/debian/build.sh" "$1" >"$1/log" 2>&1 || { tail -40 "$1/log"; die "build.sh"; }
}

# build_package makes $debs/first of HEAD, or of LMTPD_DEB_COMMIT.
build_package() {
	local commit
	commit=$(git -C "$top" rev-parse "${LMTPD_DEB_COMMIT:-HEAD}")
	export LMTPD_DEB_COMMIT=$commit
	debs=$work/deb-$commit
	mkdir -p "$work"
	exec 9>"$work/lock" # somebody may do the same
	flock 9
	if [ ! -e "$debs/built" ]; then
		find "$work" -maxdepth 1 -name "deb-*" -mmin +600 -exec rm -rf {} + # of former days
		say "the package of $commit"
		build "$debs/first"
		(cd "$debs/first" && sha256sum lmtpd_*.deb)
		touch "$debs/built"
	fi
	exec 9>&-
}

# check_package looks at what build_package has made.
check_package() {
	local lint="lintian --allow-root --tag-display-limit 0"
	[ ! -e "$debs/checked" ] || return 0
	say "the package, built once more, is the same octet for octet"
	rm -rf "$debs/second" "$debs/cache"
	(umask 077; TZ=Asia/Tokyo GOCACHE=$debs/cache build "$debs/second")
	rm -rf "$debs/cache"
	cmp "$debs"/first/lmtpd_*.deb "$debs"/second/lmtpd_*.deb || die "two builds of $LMTPD_DEB_COMMIT differ"
	(cd "$debs/second" && sha256sum lmtpd_*.deb)

	say "lintian finds no error, and no warning that is not explained"
	$lint --show-overrides --fail-on none "$debs"/first/lmtpd_*.changes
	$lint --fail-on error,warning "$debs"/first/lmtpd_*.changes || die lintian

	say "the AppArmor profiles parse"
	apparmor_parser --skip-kernel-load --skip-cache --quiet "$top/packaging/debian/apparmor/lmtpd" || die apparmor_parser
	touch "$debs/checked"
}

# build_next makes $debs/next, a newer version of the same.
build_next() {
	[ ! -e "$debs/next/complete" ] || return 0
	say "a newer version, to upgrade to"
	LMTPD_DEB_VERSION=999.0 build "$debs/next"
	touch "$debs/next/complete"
}
