package protocoltest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/lmtpd/lmtpd/protocol"
)

// NewTLSServer starts an SMTP server on a loopback port that speaks TLS from the
// first octet on, with a certificate of its own.
func NewTLSServer(h protocol.Handler) *Server {
	s := NewUnstartedServer(protocol.SMTP, h)
	s.StartTLS()
	return s
}

// StartTLS is Start with TLS from the first octet on. For STARTTLS call UseTLS
// before Start.
func (s *Server) StartTLS() {
	s.UseTLS()
	s.implicit = true
	s.Start()
}

// UseTLS gives the server a TLS configuration with a certificate made for the
// occasion, if it has none.
func (s *Server) UseTLS() {
	if s.Config.TLSConfig == nil {
		s.Config.TLSConfig = &tls.Config{Certificates: []tls.Certificate{selfSigned()}}
	}
}

// Certificate is the server's certificate; nil without TLS.
func (s *Server) Certificate() *x509.Certificate {
	if s.Config.TLSConfig == nil || len(s.Config.TLSConfig.Certificates) == 0 {
		return nil
	}
	return s.Config.TLSConfig.Certificates[0].Leaf
}

// ClientTLS is a client's configuration that trusts the server's certificate.
func (s *Server) ClientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// selfSigned makes a certificate for localhost that is valid for as long as a test
// can take.
func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(fmt.Sprintf("protocoltest: %v", err))
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(fmt.Sprintf("protocoltest: %v", err))
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(fmt.Sprintf("protocoltest: %v", err))
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// Secure makes the handshake of TLS, after the reply to STARTTLS or, for TLS from
// the start, before the greeting.
func (c *Client) Secure(config *tls.Config) *tls.ConnectionState {
	c.t.Helper()
	conn := tls.Client(c.conn, config)
	c.conn.SetDeadline(time.Now().Add(patience))
	if err := conn.Handshake(); err != nil {
		c.t.Fatalf("TLS handshake: %v", err)
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	state := conn.ConnectionState()
	return &state
}
