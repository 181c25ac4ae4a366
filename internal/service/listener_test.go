package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/webhook"
	"github.com/closeouthq/closeout/zego"
)

// newPair returns a certificate with the name for the loopback address, and its key, both in PEM.
func newPair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: privateDER})
}

// mount is a folder laid out like a Kubernetes secret. Its files are links through a link that is
// replaced atomically.
type mount string

func (m mount) cert() string { return filepath.Join(string(m), "tls.crt") }
func (m mount) key() string  { return filepath.Join(string(m), "tls.key") }

func (m mount) put(t *testing.T, version string, cert, key []byte) {
	t.Helper()
	in := func(name string) string { return filepath.Join(string(m), name) }
	err := os.Mkdir(in(version), 0o700)
	for file, content := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err == nil && content != nil {
			err = os.WriteFile(in(filepath.Join(version, file)), content, 0o600)
		}
		if _, missing := os.Lstat(in(file)); err == nil && missing != nil {
			err = os.Symlink(filepath.Join("..data", file), in(file))
		}
	}
	if err == nil {
		err = os.Symlink(version, in("..new"))
	}
	if err == nil {
		err = os.Rename(in("..new"), in("..data"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// handshake connects and returns the common name of the server's certificate.
func handshake(t *testing.T, address string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if state := c.ConnectionState(); state.NegotiatedProtocol != "http/1.1" || state.Version != tls.VersionTLS13 {
		t.Errorf("negotiated %q, version %x", state.NegotiatedProtocol, state.Version)
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// A new certificate is used without a restart. A broken one is logged once, and never used.
func TestRenewedCertificateIsUsedWithoutARestart(t *testing.T) {
	dir := mount(t.TempDir())
	cert1, key1 := newPair(t, "first")
	cert2, key2 := newPair(t, "second")
	cert3, key3 := newPair(t, "third")
	dir.put(t, "..1", cert1, key1)

	var mu sync.Mutex
	now := time.Now()
	var log strings.Builder
	c, err := newCertificate(CallbackCertificate(&config.Config{TLSCert: dir.cert(), TLSKey: dir.key()}), slog.New(slog.NewTextHandler(&log, nil)), func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := webhook.NewServer(http.NotFoundHandler(), webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	go func() { _ = server.Serve(tls.NewListener(plain, c.config())) }()
	defer server.Close()
	address := plain.Addr().String()

	steps := []struct {
		name   string
		change func()
		passes time.Duration
		want   string
		errors int
		last   string // part of the last error
	}{
		{"at the start", func() {}, 0, "first", 0, ""},
		{"replaced, but looked at a moment ago", func() { dir.put(t, "..2", cert2, key2) }, reloadEvery - 1, "first", 0, ""},
		{"replaced", func() {}, 1, "second", 0, ""},
		{"unchanged", func() {}, reloadEvery, "second", 0, ""},
		{"the key isn't the certificate's", func() { dir.put(t, "..3", cert3, key2) }, reloadEvery, "second", 1, "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
		{"it still isn't", func() {}, reloadEvery, "second", 1, ""},
		{"the key is missing", func() { dir.put(t, "..4", cert3, nil) }, reloadEvery, "second", 2, "CLOSEOUT_TLS_KEY: read the key"},
		{"the certificate is rubbish", func() { dir.put(t, "..5", []byte("x"), key3) }, reloadEvery, "second", 3, "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
		{"all is well again", func() { dir.put(t, "..6", cert3, key3) }, reloadEvery, "third", 3, ""},
		{"broken as before, which is news", func() { dir.put(t, "..7", []byte("x"), key3) }, reloadEvery, "third", 4, ""},
		{"written over in place", func() {
			for file, content := range map[string][]byte{dir.cert(): cert1, dir.key(): key1} {
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, reloadEvery, "first", 4, ""},
	}
	for _, s := range steps {
		s.change()
		mu.Lock()
		now = now.Add(s.passes)
		mu.Unlock()
		if got := handshake(t, address); got != s.want {
			t.Errorf("%s: the %s certificate, want the %s", s.name, got, s.want)
		}
		lines := strings.Split(log.String(), "level=ERROR")
		if n := len(lines) - 1; n != s.errors || !strings.Contains(lines[n], s.last) {
			t.Errorf("%s: %d errors, want %d with %q:\n%s", s.name, n, s.errors, s.last, log.String())
		}
	}
	if strings.Contains(log.String(), "PRIVATE KEY") || strings.Count(log.String(), "level=INFO") != 4 {
		t.Errorf("the log:\n%s", log.String())
	}

	if c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		c.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestInvalidCertificateFailsTheStart(t *testing.T) {
	cert, key := newPair(t, "a")
	_, other := newPair(t, "b")
	tests := []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"no certificate", nil, key, "CLOSEOUT_TLS_CERT: read the certificate: open "},
		{"no key", cert, nil, "CLOSEOUT_TLS_KEY: read the key: open "},
		{"another key", cert, other, "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
		{"not PEM", []byte("a"), key, "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
		{"the two mixed up", key, cert, "CLOSEOUT_TLS_CERT, CLOSEOUT_TLS_KEY: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := mount(t.TempDir())
			dir.put(t, "..1", tt.cert, tt.key)
			c := settings(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := Run(ctx, c, Parts{Webhook: true, Started: func(net.Addr) { cancel() }}, slog.New(slog.DiscardHandler))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !strings.Contains(err.Error(), string(dir)) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

// settings returns the configuration of a webhook with a certificate, whose Temporal can't be
// reached.
func settings(t *testing.T, dir mount) *config.Config {
	t.Helper()
	all := map[string]string{
		"apps": "1=secret", "listen": "127.0.0.1:0", "admin-listen": "127.0.0.1:0", "data": t.TempDir(), "stop-timeout": "2s",
		"tls-cert": dir.cert(), "tls-key": dir.key(),
	}
	c, err := config.Load(func(name string) (string, bool) { v, ok := all[name]; return v, ok }, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Temporal = client.Options{HostPort: "127.0.0.1:1", Namespace: "default"}
	return c
}

// Callbacks are accepted over TLS only.
func TestCallbacksOverTLS(t *testing.T) {
	dir := mount(t.TempDir())
	cert, key := newPair(t, "a")
	dir.put(t, "..1", cert, key)
	c := settings(t, dir)

	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- Run(ctx, c, Parts{Webhook: true, Started: func(a net.Addr) { started <- a.String() }}, slog.New(slog.DiscardHandler))
	}()
	var address string
	select {
	case address = <-started:
	case err := <-ended:
		t.Fatal(err)
	}

	closed := zego.RoomClose{
		Common: zego.Common{AppID: 1, Timestamp: time.Now().Unix(), Nonce: "350176"},
		RoomID: "r", RoomSessionID: 858012925204410417, RoomCloseTime: time.Now(),
	}
	closed.Signature = zego.Sign("secret", closed.Timestamp, closed.Nonce)
	body, err := json.Marshal(closed)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	for scheme, want := range map[string]string{"https": `200 {"status":"queued"`, "http": "400 Client sent an HTTP request to an HTTPS server"} {
		resp, err := (&http.Client{Transport: transport}).Post(scheme+"://"+address+webhook.Path, "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", string(said)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", scheme, got)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
