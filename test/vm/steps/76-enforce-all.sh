# AppArmor, enforce mode: nor was anything else refused, with one user, reload, idle exit
. /test/apparmor.sh
unexpected enforce
refuses "what a profile does not allow is refused: the front's does not run cat" aa-exec -p lmtpd -- cat /etc/hostname
refuses "the writer's does not read /root" aa-exec -p lmtpd-writer -- lmtpd check -c /root/lmtpd.toml
logged() { denials | grep -q DENIED; }
within 10 "and the kernel's log says so" logged
aa-complain /etc/apparmor.d/lmtpd | sed 's/^/   /'
systemctl restart lmtpd-writer.service lmtpd.service
