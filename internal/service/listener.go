package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/probe"
)

const (
	// reloadEvery is how long a certificate is used before its files are read again. Reading takes
	// less time than a handshake.
	reloadEvery = 5 * time.Second
	// reloadTimeout bounds a handshake's wait for the files.
	reloadTimeout = time.Second
)

// secure returns a TLS listener with the certificate for callbacks, or l itself without one.
func secure(l net.Listener, c *config.Config, log *slog.Logger) (net.Listener, error) {
	if c.TLSCert == "" {
		return l, nil
	}
	cert, err := newCertificate(CallbackCertificate(c), log, time.Now)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, cert.config()), nil
}

// CertificateFiles is a pair of PEM files, and the settings that name them.
type CertificateFiles struct {
	Cert, Key               string
	CertSetting, KeySetting string
	// For is the use of the certificate.
	For string
}

// CallbackCertificate returns the files of the certificate for callbacks.
func CallbackCertificate(c *config.Config) CertificateFiles {
	return CertificateFiles{c.TLSCert, c.TLSKey, "CLOSEOUT_TLS_CERT", "CLOSEOUT_TLS_KEY", "callbacks"}
}

// TemporalCertificate returns the files of the client certificate for Temporal.
func TemporalCertificate(c *config.Config) CertificateFiles {
	return CertificateFiles{c.TemporalCert, c.TemporalKey, "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH", "Temporal"}
}

// RenewWithin is the remaining lifetime below which a certificate is reported. Automatic renewal is
// done by then, and an operator has two weeks.
const RenewWithin = 14 * 24 * time.Hour

// Expiry returns an error if the certificate has expired or will within RenewWithin.
func (f CertificateFiles) Expiry(now time.Time) error {
	pair, err := f.Load()
	if err != nil {
		return err
	}
	until := pair.Leaf.NotAfter
	switch {
	case until.Before(now):
		return fmt.Errorf("%s: the certificate for %s expired at %s", f.CertSetting, f.For, until.UTC().Format(time.RFC3339))
	case until.Sub(now) < RenewWithin:
		return fmt.Errorf("%s: the certificate for %s expires at %s", f.CertSetting, f.For, until.UTC().Format(time.RFC3339))
	}
	return nil
}

// certificate is a pair of PEM files that is reloaded, because certificates are renewed without a
// restart. It compares contents, because modification times differ among file systems.
type certificate struct {
	files CertificateFiles
	log   *slog.Logger
	now   func() time.Time
	load  *probe.Probe[*tls.Certificate]

	mu     sync.Mutex
	pair   *tls.Certificate // the last good one
	looked time.Time
	fault  string // of the last reload
}

func newCertificate(files CertificateFiles, log *slog.Logger, now func() time.Time) (*certificate, error) {
	c := &certificate{files: files, log: log, now: now, looked: now()}
	c.load = probe.New(reloadTimeout, func(context.Context) (*tls.Certificate, error) { return files.Load() })
	pair, err := files.Load()
	if err != nil {
		return nil, err
	}
	c.use(pair)
	return c, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
		// With HTTP/2 one connection could bring hundreds of requests at once, and the limits of
		// the listener count connections.
		NextProtos: []string{"http/1.1"},
	}
}

// current returns the pair in use, the new one if the files have changed. A disk that hangs
// delays one handshake for a moment, and no other.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	now, pair := c.now(), c.pair
	fresh := now.Sub(c.looked) < reloadEvery
	if !fresh {
		c.looked = now
	}
	c.mu.Unlock()
	if fresh {
		return pair
	}
	pair, err := c.load.Get(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	fault := ""
	if err == nil {
		c.use(pair)
	} else if fault = err.Error(); fault != c.fault {
		c.log.Error("new certificate unusable, old one stays in use", "for", c.files.For, "error", fault, "until", c.pair.Leaf.NotAfter)
	}
	c.fault = fault
	return c.pair
}

// use sets the pair in use.
func (c *certificate) use(pair *tls.Certificate) {
	if c.pair == nil || !bytes.Equal(c.pair.Leaf.Raw, pair.Leaf.Raw) {
		c.log.Info("certificate read", "for", c.files.For, "names", pair.Leaf.DNSNames, "until", pair.Leaf.NotAfter)
	}
	c.pair = pair
}

// Load reads the pair. Its errors name the settings.
func (f CertificateFiles) Load() (*tls.Certificate, error) {
	cert, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("%s: read the certificate: %w", f.CertSetting, err)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fmt.Errorf("%s: read the key: %w", f.KeySetting, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %s and %s are no certificate and its key, both in PEM: %w", f.CertSetting, f.KeySetting, f.Cert, f.Key, err)
	}
	return &pair, nil
}
