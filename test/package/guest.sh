#!/bin/bash
# Runs the steps inside the container; the first that fails ends it.
set -u
cd /test
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mapfile -t only < <(grep . only)

wanted() { # STEP
	[ ${#only[@]} = 0 ] && return 0
	local w
	for w in "${only[@]}"; do
		case $1 in "$w" | "$w"-* | *-"$w") return 0 ;; esac
	done
	return 1
}

for step in steps/*.sh; do
	name=${step#steps/} name=${name%.sh}
	wanted "$name" || continue
	printf '\n---- %s: %s\n' "$name" "$(sed -n 's/^# //p' "$step" | head -1)"
	began=$(date +%s%3N)
	if ! bash -euo pipefail -c '. /test/lib.sh; . "$1"' step "$step"; then
		printf 'FAILED: step %s\n' "$name"
		systemctl --no-pager --failed
		journalctl --no-pager --output=short -u 'lmtpd*' | grep -v ': recipient ' | tail -n 40 | cut -c 1-300
		exit 1
	fi
	printf '   (%d ms)\n' $(($(date +%s%3N) - began))
done
