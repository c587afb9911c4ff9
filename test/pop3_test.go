package test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// servePOP3 is a maildrop with one message (RFC 1939), for one client.
func servePOP3(l net.Listener, message string) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	stuffed := strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:]
	fmt.Fprint(conn, "+OK ready\r\n")
	for in := bufio.NewScanner(conn); in.Scan(); {
		verb, arg, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(in.Text())), " ")
		switch verb {
		case "CAPA":
			fmt.Fprint(conn, "+OK\r\nUSER\r\nUIDL\r\n.\r\n")
		case "STAT":
			fmt.Fprintf(conn, "+OK 1 %d\r\n", len(message))
		case "LIST":
			if arg != "" {
				fmt.Fprintf(conn, "+OK 1 %d\r\n", len(message))
				continue
			}
			fmt.Fprintf(conn, "+OK\r\n1 %d\r\n.\r\n", len(message))
		case "UIDL":
			fmt.Fprint(conn, "+OK\r\n1 x\r\n.\r\n")
		case "RETR":
			fmt.Fprintf(conn, "+OK\r\n%s.\r\n", stuffed)
		case "USER", "PASS", "DELE", "NOOP", "LAST", "RSET":
			fmt.Fprint(conn, "+OK\r\n")
		case "QUIT":
			fmt.Fprint(conn, "+OK\r\n")
			return
		default:
			fmt.Fprint(conn, "-ERR\r\n")
		}
	}
}
