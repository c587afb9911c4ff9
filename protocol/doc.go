// Package protocol speaks SMTP (RFC 5321) and LMTP (RFC 2033) on the server's
// side of a connection. It is a library of its own: a [Server] has the shape of
// [net/http.Server], a [Handler] takes the messages, a [Policy] of optional
// functions decides on each command, and a [Reply] is a plain value.
//
// # The flow of a session
//
//	Serve accepts a connection            server.go, lifecycle.go, idle.go
//	  PROXY header of a trusted proxy     proxy.go, proxyheader.go
//	  TLS from the start, or STARTTLS     starttls.go
//	  Policy.Connect, 220                 session.go
//	  LHLO, EHLO, HELO                    hello.go
//	  AUTH                                auth.go
//	  XCLIENT, XFORWARD from trusted peers  trust.go
//	  MAIL -> new Transaction             mail.go   (path.go, params.go)
//	  RCPT -> Transaction.Rcpts           mail.go   (dsn.go, rrvs.go)
//	  DATA -> 354, Handler.Deliver        data.go   (body.go, scan.go)
//	  BDAT -> the same, from chunk to chunk  chunks.go
//	       -> replies, in RCPT order      settle.go
//	  RSET, NOOP, VRFY, EXPN, QUIT        verbs.go
//	  HELP, verbs of the program          verb.go
//
// One goroutine serves one session, and it is the goroutine that calls the
// policy and the handler: a handler reads the body from the connection while it
// arrives, and nothing of a message is kept by this package.
//
// # What a reply after DATA stands for
//
// In LMTP mode each accepted recipient has its own reply, in the order of the
// RCPT commands, duplicates included (RFC 2033 section 4.2). A handler settles
// recipients by index with [Transaction.Settle], from any goroutine and in any
// order; each reply goes out as soon as those before it are out. In SMTP mode
// there is one reply, that of Handler.Deliver.
//
// # Handlers that are here
//
// [Discard], [Debug], [Parsed], [Text] and [PerRecipient] take messages; [Split] and [Fanout]
// pass them to other handlers. Package relay hands them on to another server, and
// package protocoltest records them. FEATURES.md has what aiosmtpd, pymta and Python's
// smtpd can do with the name of what does it here; COMPARISON.md, their command lines.
//
// # Strictness
//
// Only CR LF . CR LF ends a message, in every mode: a lone CR or LF is never a
// line end as far as the end of the data is concerned, so that no second message
// can be smuggled in with the first. A message that breaks a limit is read to its
// true end, never parsed as commands, and refused.
package protocol
