# links, FIFOs and races, with fs.protected_* as Debian sets it and without: the tests of these in delivery/maildir and delivery/writer
names='symlinks hardlinks fifos regular'
for protected in yes no; do
	if [ $protected = no ]; then
		for name in $names; do sysctl -q fs.protected_$name=0; done
	fi
	values=$(for name in $names; do printf '%s=%s ' $name "$(sysctl -n fs.protected_$name)"; done)
	show "fs.protected_*: $values"
	[ $protected = no ] || is "symlinks and hardlinks are protected" "1 1" "$(sysctl -n fs.protected_symlinks) $(sysctl -n fs.protected_hardlinks)"
	for package in maildir writer; do
		cd /test/$package
		/test/$package.test -test.v -test.timeout=15m -test.run='Symlink|Obstacle|Owner|Root|Create|Partial|Unprivileged|Planted|Swap|MessagesStay|OnlyTheFront' >/tmp/$package 2>&1 || { grep -B 20 -E '^ *--- FAIL' /tmp/$package; tail -5 /tmp/$package; fail "tests of package $package"; }
		show "package $package: $(grep -c '^--- PASS' /tmp/$package) tests; $(sed -n 's/^ *--- SKIP: \([^ ]*\).*/\1/p' /tmp/$package | grep -v Child$ | sed 's/^/skipped: /' | tr '\n' ' ')"
	done
	grep -E '^ +[a-z_]+\.go.* swaps' /tmp/writer | sed 's/^ */   /'
done
sysctl -q --system
