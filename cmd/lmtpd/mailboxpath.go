package main

import (
	"fmt"
	"strings"
)

// checkMailboxPath says what is wrong with a template for mailbox.path. The package
// delivery expands it; what is refused here could never be expanded safely.
func checkMailboxPath(path string) error {
	switch {
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return &valueError{quoted(path) + " has a control character", "remove it"}
	case strings.HasPrefix(path, "~/") && len(path) > len("~/"):
	case strings.HasPrefix(path, "/") && len(path) > 1:
	default:
		return &valueError{quoted(path) + " is neither below the home nor absolute", `begin it with "~/" or "/", such as "~/Maildir" or "/var/mail/%d/%n"`}
	}
	for i, part := range strings.Split(path, "/") {
		if part == ".." {
			return &valueError{quoted(path) + ` has a ".." in it`, "write the directory that is meant"}
		}
		if i > 0 && strings.HasPrefix(part, "~") {
			return &valueError{quoted(path) + ` has a "~" that is not at its beginning`, `"~/" at the beginning is the home`}
		}
	}
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			continue
		}
		i++
		if i == len(path) {
			return &valueError{quoted(path) + " ends in %", "write %% for a percent sign"}
		}
		if !strings.ContainsRune("und%", rune(path[i])) {
			return &valueError{fmt.Sprintf("%s has %s, which is no variable", quoted(path), quoted("%"+path[i:i+1])), "write %u (user), %n (local part), %d (domain) or %% (a percent sign)"}
		}
	}
	return nil
}
