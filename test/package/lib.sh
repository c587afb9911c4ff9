# What the steps share: each line they show is a claim that has been checked.

fail() { printf '   FAILED: %s\n' "$*"; exit 1; }
show() { printf '   %s\n' "$*"; }

# is CLAIM WANT HAVE
is() {
	[ "$2" = "$3" ] || fail "$1: want \"$2\", have \"$3\""
	show "$1: $3"
}

# within SECONDS CLAIM COMMAND...: the command succeeds before the time is over.
within() {
	local seconds=$1 claim=$2 i
	shift 2
	for ((i = 0; i < seconds * 20; i++)); do
		if "$@" >/dev/null 2>&1; then
			show "$claim"
			return 0
		fi
		sleep 0.05
	done
	fail "$claim: not within $seconds s: $*"
}

refuses() { # CLAIM COMMAND...
	local claim=$1
	shift
	if "$@" >/dev/null 2>&1; then fail "$claim: $* succeeded"; fi
	show "$claim"
}

prop() { systemctl show -P "$2" "$1"; } # UNIT PROPERTY
main_pid() { prop lmtpd.service MainPID; }
active() { systemctl is-active -q "$1"; }
inactive() { ! systemctl is-active -q "$1"; }
newer_pid() { [ "$(main_pid)" != 0 ] && [ "$(main_pid)" != "$1" ]; } # OLD
count() { find "$@" -type f 2>/dev/null | wc -l; }
holds() { [ "$(count "${@:2}")" = "$1" ]; } # N DIRECTORY...
drop_in() { # UNIT NAME: a drop-in from standard input
	mkdir -p "/etc/systemd/system/$1.d"
	cat >"/etc/systemd/system/$1.d/$2.conf"
	systemctl daemon-reload
}
no_drop_in() { # UNIT NAME
	rm "/etc/systemd/system/$1.d/$2.conf"
	rmdir "/etc/systemd/system/$1.d"
	systemctl daemon-reload
}

# mail RECIPIENT...: one message through Postfix.
mail() { printf 'Subject: test\nFrom: root\n\nHello.\n' | sendmail -f root@example.org "$@"; }

generic=/run/lmtpd/lmtp.sock
postfix=/var/spool/postfix/lmtpd/lmtp.sock

# site makes accounts, users and Postfix's configuration: the lines of main.cf that
# README.Debian asks for.
site() {
	# Login accounts, and addresses of a file whose mail one uid owns.
	for name in alice bob carol; do
		useradd --create-home --shell /bin/bash $name
	done
	groupadd --gid 5000 vmail
	useradd --uid 5000 --gid 5000 --home-dir /srv/vmail --create-home --shell /usr/sbin/nologin vmail
	install -d -o vmail -g vmail /srv/vmail/example.net
	for name in dora emma fred; do
		install -d -o vmail -g vmail /srv/vmail/example.net/$name
		echo "$name@example.net::5000:5000::/srv/vmail/example.net/$name::" >>/etc/lmtpd/users
	done

	# The lines of main.cf that README.Debian asks for.
	postconf -e 'mydestination = example.org, localhost' \
		'mailbox_transport = lmtp:unix:lmtpd/lmtp.sock' \
		'virtual_mailbox_domains = example.net' \
		'virtual_transport = lmtp:unix:lmtpd/lmtp.sock'
	# The machine has no syslogd.
	postconf -e 'maillog_file = /var/log/mail.log' 'minimal_backoff_time = 2s' 'queue_run_delay = 2s'
	systemctl restart postfix
}
