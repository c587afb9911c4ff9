package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// playDialog follows a file of lines: "C: text" is sent, with CR LF; "S: text" must be
// the beginning of the next line from the server, "S..: text" that of one of the next
// lines; "TLS" makes the handshake.
func playDialog(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := net.Dial("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second)) // for a server that has hung
	in := bufio.NewReader(conn)
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		line = strings.TrimSuffix(line, "\n")
		what, text, _ := strings.Cut(line, ": ")
		switch what {
		case "C":
			_, err := conn.Write([]byte(text + "\r\n"))
			ts.Check(err)
		case "S":
			got, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(got, text) {
				ts.Fatalf("the server says %q (%v), want %q", got, err, text)
			}
		case "S..":
			for n := 0; ; n++ {
				got, err := in.ReadString('\n')
				if err != nil || n == 100 {
					ts.Fatalf("the server says %q at last (%v), and never %q", got, err, text)
				}
				if strings.HasPrefix(got, text) {
					break
				}
			}
		case "TLS":
			secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			ts.Check(secured.Handshake())
			conn, in = secured, bufio.NewReader(secured)
		case "":
		default:
			ts.Fatalf("%s: %q is no line of a dialog", args[1], line)
		}
	}
}

// makeCertificate writes a certificate for localhost, signed by itself, and its key.
func makeCertificate(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}
