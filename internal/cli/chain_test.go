package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/closeouthq/closeout/internal/testenv"
)

// A chain without its intermediate certificate is refused, as senders refuse it. Other certificates
// in the file and another order don't change that.
func TestCertificateChainIsVerified(t *testing.T) {
	root := testenv.NewAuthority(t)
	intermediate, leaf, leafKey := root.Intermediate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "intermediate"}}, testenv.For("closeout.example.com", time.Hour))
	read := func(file string) []byte {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(root.Cert))
	other := testenv.NewAuthority(t)
	for name, tt := range map[string]struct {
		shown [][]byte
		want  string
	}{
		"whole":                      {[][]byte{read(leaf), read(intermediate)}, ""},
		"with its root":              {[][]byte{read(leaf), read(intermediate), read(root.Cert)}, ""},
		"without its intermediate":   {[][]byte{read(leaf)}, "chain of 1 certificates in it ends at one signed by \"CN=intermediate\""},
		"with another authority's":   {[][]byte{read(leaf), read(other.Cert)}, "certificate signed by unknown authority"},
		"with its root alone behind": {[][]byte{read(leaf), read(root.Cert)}, "certificate signed by unknown authority"},
	} {
		pair, err := tls.X509KeyPair(bytes.Join(tt.shown, nil), read(leafKey))
		if err != nil {
			t.Fatal(err)
		}
		switch err := verifyChain(&pair, roots); {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
