// Command load delivers many messages over LMTP while its server is restarted, and
// tells how the server treated its connections and transactions. The last line of
// its output, and exit code 1, say whether one was refused or lost.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	l := &load{}
	flag.StringVar(&l.socket, "socket", "", "Unix socket of the server")
	flag.IntVar(&l.messages, "n", 1000, "how many messages")
	flag.IntVar(&l.workers, "workers", 8, "connections at once")
	flag.IntVar(&l.perSession, "per-session", 1, "messages of one connection")
	flag.IntVar(&l.size, "size", 2000, "octets of a message")
	flag.DurationVar(&l.timeout, "timeout", time.Minute, "how long to wait for a reply")
	flag.Float64Var(&l.rate, "rate", 0, "messages per second at most; 0: no limit")
	strict := flag.Bool("strict", true, "what the server broke off is a failure (not so where it is killed)")
	to := flag.String("to", "", "recipients, separated by commas; each message goes to one of them")
	flag.Parse()
	l.to = strings.Split(*to, ",")
	if l.socket == "" || *to == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(64)
	}
	began := time.Now()
	l.began = began.UnixNano()
	t := l.run()
	fmt.Printf("%d messages in %.1f s, %d connections\n", t.delivered, time.Since(began).Seconds(), t.connections)
	fmt.Printf("longest wait for a greeting %d ms, for a message %d ms\n", t.slowGreeting.Milliseconds(), t.slowMessage.Milliseconds())
	fmt.Printf("connections refused %d, turned away %d, asked to come again between messages %d, transactions lost %d\n", t.refused, t.turnedAway, t.asked, t.lost)
	for _, text := range t.faults {
		fmt.Println("  " + text)
	}
	if t.refused > 0 || t.delivered != l.messages || *strict && t.turnedAway+t.lost > 0 {
		fmt.Println("NOT AS PROMISED")
		os.Exit(1)
	}
}
