// Command bench measures lmtpd against what one would pick in its place, and
// against what the file system allows.
//
//	bench delivery   into Maildirs: lmtpd, Dovecot's lmtp, Postfix's virtual(8)
//	                 and the bare system calls (make bench)
//	bench protocol   into nothing: the protocol package, go-smtp's server and
//	                 aiosmtpd (make bench-protocol)
//
// Figures of two machines, or of two hours of one machine, say nothing about
// each other. All contenders are therefore measured in one run, in turns
// (A B C, A B C, ...), each time from fresh mailboxes on one journaled file
// system made for it, and what counts are the ratios of the medians.
//
// The load generator does not believe what it is told: each message carries a
// number, and after each measurement the numbers found in the files of new/ must
// be those of the acknowledged deliveries, once each.
package main
