// Package userdb answers one question: whose mailbox is this address?
//
// [Rules] turn the address of a RCPT command into an [Address]: detail split off, case folded, everything refused
// that must never reach a path or a command line. A [Database] is asked for the Address and has three outcomes: a
// [*User]; an error that is [ErrNoSuchUser], the only one that may bounce a mail; or any other error, which means
// "not known now, try again later". A driver that is not sure is not sure: it never says ErrNoSuchUser.
//
// Databases here are [PasswdFile] (Dovecot's format), [System] (login accounts, whatever name service they come
// from) and [Any] (every address, for trying things out). [Chain] asks several in order and [Cache] remembers found
// users for a few seconds. Package userdbtest holds the tests that every driver passes.
//
// All types are safe for concurrent use once they are set up. The package imports the standard library only.
package userdb
