# What the steps about AppArmor share.

# denials: what the kernel's log says about the profiles. It reaches the journal by
# the kernel's messages, or by audit where systemd listens to that.
denials() { journalctl -q -b -o cat _TRANSPORT=kernel + _TRANSPORT=audit | grep -E "apparmor=\"?(ALLOWED|DENIED).*profile=\"lmtpd" || true; }
unexpected() { # MODE
	local found
	found=$(denials)
	[ -z "$found" ] || { echo "$found" | sort | uniq -c | head -40; fail "$1 mode: a profile does not foresee this"; }
	show "$1 mode: the kernel's log has no line about the profiles"
}

# everything: deliveries and whatever else the processes do, by every way that they have.
everything() {
	trap '[ $? = 0 ] || denials | sort | uniq -c | head -20 | cut -c 1-400' EXIT
	local before after big=/tmp/big
	before=$(count /home /srv/vmail)
	mail alice@example.org bob@example.org carol@example.org dora@example.net emma@example.net
	mail bob+lists@example.org nobody-here@example.net
	# A body that is spooled to disk, to owners of both kinds.
	{ printf 'Subject: large\n\n'; head -c 3000000 /dev/urandom | base64; } >$big
	lmtpd send -f root@example.org --to $generic alice@example.org dora@example.net <$big >/dev/null
	# A mailbox that is full, a folder that is made, one that is filed by its header.
	printf 'Subject: x\nX-Spam-Flag: YES\n\nHello.\n' | lmtpd send -f root@example.org --to $generic carol@example.org carol+made@example.org >/dev/null
	/test/load -socket $postfix -n 200 -workers 8 -to emma@example.net,carol@example.org >/tmp/load || { cat /tmp/load; fail load; }
	lmtpd status >/dev/null
	lmtpd status --json >/dev/null
	systemctl reload lmtpd.service lmtpd-writer.service
	touch /etc/lmtpd/users
	mail emma@example.net
	after=$((before + 5 + 1 + 2 + 2 + 200 + 1))
	within 60 "mail by every way: $((after - before)) files" at_least $after /home /srv/vmail
	systemctl restart lmtpd-writer.service lmtpd.service
	mail alice@example.org emma@example.net
	within 30 "and after a restart" at_least $((after + 2)) /home /srv/vmail
}
at_least() { [ "$(count "${@:2}")" -ge "$1" ]; } # N DIRECTORY...
