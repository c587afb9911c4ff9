#!/bin/sh
# Makes the Debian package of what is committed, into build/deb (or the directory
# given). Two builds of one commit are the same, octet for octet.
#
#     packaging/debian/build.sh [DIRECTORY]
#
# It needs Debian's debhelper and dh-apparmor, and a Go as new as go.mod wants. Go's
# modules are fetched once, as by every go build; debian/rules then works without
# network.
#
# LMTPD_DEB_COMMIT names another commit than HEAD; LMTPD_DEB_VERSION=0.2.0 makes a
# package of that version (the tests upgrade so).
set -eu

top=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$top/build/deb}
commit=$(git -C "$top" rev-parse "${LMTPD_DEB_COMMIT:-HEAD}")
if ! git -C "$top" diff --quiet HEAD --; then
	echo "build.sh: building commit $commit; changes that are not committed are left out" >&2
fi

tree=$(mktemp -d)
trap 'chmod -R u+w "$tree"; rm -rf "$tree"' EXIT
trap 'exit 130' INT TERM
mkdir "$tree/lmtpd"
git -C "$top" archive "$commit" | tar -x -C "$tree/lmtpd"
cd "$tree/lmtpd"
cp -a packaging/debian debian

# The time of the commit is the time of every file in the package.
SOURCE_DATE_EPOCH=$(git -C "$top" log -1 --format=%ct "$commit")
export SOURCE_DATE_EPOCH
if [ -n "${LMTPD_DEB_VERSION:-}" ]; then
	date=$(date -u -R -d "@$SOURCE_DATE_EPOCH")
	{
		printf 'lmtpd (%s) unstable; urgency=medium\n\n  * Built for a test.\n\n' "$LMTPD_DEB_VERSION"
		printf ' -- The lmtpd authors <packages@lmtpd.invalid>  %s\n\n' "$date"
		cat packaging/debian/changelog
	} > debian/changelog
fi

# The environment must not reach into the package.
export LC_ALL=C.UTF-8 TZ=UTC GOTOOLCHAIN=local
umask 022
GOCACHE=$(go env GOCACHE)
export GOCACHE
go mod vendor
dpkg-buildpackage -b -us -uc

mkdir -p "$out"
for file in ../lmtpd_*; do
	cp "$file" "$out/"
	echo "$out/${file#../}"
done
