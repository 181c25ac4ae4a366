package testenv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// Cert is the path of the authority's own certificate, a PEM file.
	Cert string

	parsed *x509.Certificate
	key    *ecdsa.PrivateKey
}

// NewAuthority returns an authority that is valid for an hour.
func NewAuthority(t *testing.T) *Authority {
	t.Helper()
	a := &Authority{}
	a.Cert, _ = a.Issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// Issue signs a certificate for servers and clients that has been valid for an hour. It returns the
// paths of PEM files with the certificate and its key.
func (a *Authority) Issue(t *testing.T, template *x509.Certificate) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if a.key == nil {
		a.parsed, a.key, template.ExtKeyUsage = template, private, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.parsed, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), "pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("CERTIFICATE", der), write("PRIVATE KEY", privateDER)
}

// Intermediate issues an intermediate authority, and a leaf signed by it.
func (a *Authority) Intermediate(t *testing.T, between, of *x509.Certificate) (intermediate, leaf, leafKey string) {
	t.Helper()
	between.NotAfter = time.Now().Add(time.Hour)
	between.IsCA, between.BasicConstraintsValid, between.KeyUsage = true, true, x509.KeyUsageCertSign
	intermediate, key := a.Issue(t, between)
	pair, err := tls.LoadX509KeyPair(intermediate, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, leafKey = (&Authority{parsed: pair.Leaf, key: pair.PrivateKey.(*ecdsa.PrivateKey)}).Issue(t, of)
	return intermediate, leaf, leafKey
}

// For returns the template of a certificate for a host name or an IP address that expires after
// lasts.
func For(name string, lasts time.Duration) *x509.Certificate {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(lasts)}
	if ip := net.ParseIP(name); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{name}
	}
	return c
}
