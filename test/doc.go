// Package test holds lmtpd's end-to-end tests: the built program against real
// mail servers and clients, each started by the test itself on loopback or
// Unix sockets, in directories of its own.
//
// setup.sh installs the programs. A test whose program is missing reports
// itself skipped; with LMTPD_TEST_REQUIRE=1 it fails. LMTPD_TEST_BINARY names
// a built lmtpd to test instead of the one in this tree.
package test
