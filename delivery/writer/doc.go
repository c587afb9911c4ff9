// Package writer puts two processes between the network and the mailboxes of system
// users: the front, which speaks LMTP and has no right to any mailbox, and the
// writer, which may become any user and speaks to nobody but the front. Client is the
// front's end and takes the place of a maildir.Writer; Server is the writer's end and
// has one.
//
// # What a request can do
//
// A request names targets and brings a body. It can add one message to each mailbox
// and learn what became of it, and nothing else: package maildir opens no message for
// reading, replaces none, and removes only what it made in the same call. (Beside
// messages it keeps a mailbox's files maildirsize and subscriptions, and it can say
// whether a file with a given token is there. After a delivery it may remove files from
// tmp/, which are no messages, once nobody has touched them for 36 hours; no request asks
// for that.) So who has taken the front over can
// forge mail, and can neither read nor delete any.
//
// The writer believes the front nothing else. Server.Authorize asks the writer's own
// user databases for the target's Account, and owner, groups, root and path must be
// those that it finds; see delivery.Authorizer. maildir.Writer then refuses root,
// root's group and uids below its minimum, follows no link below the root, and does
// each step with the owner's credentials, so that the kernel has the last word.
// A target without an owner (mail that belongs to whoever runs lmtpd) is written as
// the writer process itself, unless that is root.
//
// The peer must be the front by SO_PEERCRED. A body that does not fit into the socket
// comes as a descriptor: of a regular file, open for reading, as long as announced.
//
// # The socket
//
// It is a Unix socket of type SOCK_SEQPACKET: packets arrive whole or not at all,
// each with its descriptor. A connection carries one request at a time, and the
// results of it as they come, one packet each. The client keeps connections, because
// to make one costs ten times as much as to use one. All lengths are limited, and
// what does not follow the rules ends the connection (wire.go, request.go, result.go).
//
// The deadline travels as the time that is left. The front cancels by a packet or by
// the end of the connection; a copy that has its name by then is seen through, any
// other is certainly not delivered.
//
// # When one of them ends
//
// A writer begins with a request when it has all of it. One that is shut down serves
// what it has been sent, and closes its receiving end at once, so that the next
// request fails while it is sent, and the client sends it to the next writer. If the
// writer is killed, the copies that it had not reported are ErrLost: a temporary
// failure, after which there may be a second copy and never none. If the front is
// killed, the writer drops the copies that have no name yet.
//
// # What the writer process needs
//
// For those who write its sandbox:
//
//   - capabilities: CAP_SETUID and CAP_SETGID, as ambient ones of an account of its own
//     (package confine gives the ambient set up, so that no child has them). No
//     CAP_DAC_OVERRIDE, CAP_CHOWN or CAP_FOWNER. NoNewPrivileges is no obstacle.
//   - its socket by activation: ListenSequentialPacket=, FileDescriptorName=writer,
//     SocketUser= the front's account, SocketMode=0600. Without systemd the writer binds
//     writer.socket itself, for which it needs the right to give the file to that account.
//   - files: the mailboxes for writing; configuration and user files for reading (their
//     group must let it); the accounts of this machine for reading: /etc, the sockets of
//     systemd-userdbd (/run/systemd/userdb), nscd and sssd, and, where there is no
//     systemd-userdbd, getent(1) for executing (ExecPaths=/usr/bin/getent beside itself
//     and the libraries). /proc, since files are named by /proc/self/fd; ProcSubset=pid
//     and ProtectProc=invisible will do. No state directory, no /tmp.
//   - address families: AF_UNIX. No network, unless the name service asks a server from
//     within the calling process, as libnss-ldap and NIS do.
//   - system calls: @system-service with openat2, setfsuid, setfsgid and setgroups, and
//     the landlock_ ones; capset and prctl(PR_CAPBSET_DROP) may fail. Not @mount,
//     @resources, @keyring, @debug. RestrictSUIDSGID= forbids openat2 and must be off.
//   - PrivateUsers=no, for the owners have to exist.
//
// The front needs AF_UNIX for the writer's socket, memfd_create where limits.memory_body
// is above 256 KiB, no capability, and no access to any home.
package writer
