package service

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// lookEvery is how long a certificate is used before its files are looked at
// again. To read them takes less than the handshake that asks for them.
const lookEvery = 5 * time.Second

// secure makes a listener speak TLS with a pair of PEM files.
func secure(l net.Listener, certFile, keyFile string, log *slog.Logger) (net.Listener, error) {
	c, err := newCertificate(certFile, keyFile, log, time.Now)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(l, c.config()), nil
}

// certificate is a pair of PEM files that is read again while it is in use, as
// certificates are renewed without asking what uses them. It goes by what is in
// the files: their times and names tell less, and mean something else on each
// file system.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu     sync.Mutex
	pair   *tls.Certificate // the last good one
	looked time.Time
	fault  string // of the last look
}

func newCertificate(certFile, keyFile string, log *slog.Logger, now func() time.Time) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, now: now, looked: now()}
	if err := c.look(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: c.get,
		// With HTTP/2 one connection could bring hundreds of requests at once, and
		// the limits of the listener are counted in connections.
		NextProtos: []string{"http/1.1"},
	}
}

// get gives the pair to a handshake, the new one if the files have changed.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		fault := ""
		if err := c.look(); err != nil {
			fault = err.Error()
		}
		if fault != "" && fault != c.fault {
			c.log.Error("the new certificate can't be used, the old one stays in use", "error", fault, "until", c.pair.Leaf.NotAfter)
		}
		c.fault = fault
	}
	return c.pair, nil
}

// look reads the pair.
func (c *certificate) look() error {
	pair, err := LoadCertificate(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	if c.pair == nil || !bytes.Equal(c.pair.Leaf.Raw, pair.Leaf.Raw) {
		c.log.Info("the certificate for callbacks is read", "names", pair.Leaf.DNSNames, "until", pair.Leaf.NotAfter)
	}
	c.pair = pair
	return nil
}

// LoadCertificate reads a pair of PEM files. Its errors name the settings.
func LoadCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_TLS_CERT: read the certificate: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_TLS_KEY: read the key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: %s and %s are no certificate and its key, both in PEM: %w", certFile, keyFile, err)
	}
	return &pair, nil
}
