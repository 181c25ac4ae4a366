package webhook_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/closeouthq/closeout/webhook"
)

// synced is a log that is safe for concurrent use.
type synced struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *synced) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *synced) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// Connections that never reach the handler are counted and logged too.
func TestConnectionFaultsAreObserved(t *testing.T) {
	made := httptest.NewTLSServer(nil)
	defer made.Close()
	config := &tls.Config{Certificates: made.TLS.Certificates, NextProtos: []string{"http/1.1"}}
	trusting := x509.NewCertPool()
	trusting.AddCert(made.Certificate())

	write := func(what string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, what)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	cut := func(what string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, what)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}
	secured := func(config *tls.Config, then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			s := tls.Client(c, config)
			if err := s.Handshake(); err == nil {
				then(s)
			}
		}
	}
	good := request(signed("secret"))
	last := strings.Replace(good, "Host: h\r\n", "Host: h\r\nConnection: close\r\n", 1)
	tests := []struct {
		name      string
		encrypted bool
		do        func(net.Conn)
		fault     webhook.ConnectionFault
		logged    string
	}{
		{"a callback", false, write(last), "", ""},
		{"two callbacks", false, write(good + last), "", ""},
		{"nothing", false, func(net.Conn) {}, "", ""},
		{"TLS on the plain port", false, secured(&tls.Config{InsecureSkipVerify: true}, write(last)), webhook.FaultEncrypted, ""},
		{"an alert on the plain port", false, cut("\x15\x03\x01\x00\x02\x02\x46"), webhook.FaultEncrypted, ""},
		{"an SSL hello on the plain port", false, cut("\x80\x2e\x01\x00\x02" + strings.Repeat("\x00", 41)), webhook.FaultEncrypted, ""},
		{"zeros", false, cut(strings.Repeat("\x00", 40)), webhook.FaultRequest, ""},
		{"a PROXY preamble", false, write("PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n" + last), webhook.FaultProxy, ""},
		{"a binary PROXY preamble", false, write("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), webhook.FaultProxy, ""},
		{"no HTTP", false, write("hello\r\n\r\n"), webhook.FaultRequest, ""},
		{"too large a header", false, write("POST / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"), webhook.FaultRequest, ""},
		{"a callback, and then no HTTP", false, func(c net.Conn) {
			_, _ = io.WriteString(c, good)
			_ = answer(t, c)
			write("hello\r\n\r\n")(c)
		}, webhook.FaultRequest, ""},
		{"a header that ends early", false, cut("POST /zego"), webhook.FaultRequest, ""},

		{"a callback by TLS", true, secured(&tls.Config{RootCAs: trusting, ServerName: "example.com"}, write(last)), "", ""},
		{"nothing by TLS", true, func(net.Conn) {}, "", ""},
		{"a certificate that isn't trusted", true, secured(&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com"}, write(last)), webhook.FaultTLS, "bad certificate"},
		{"an old TLS", true, secured(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}, write(last)), webhook.FaultTLS, "unsupported versions"},
		{"an alert, no hello", true, cut("\x15\x03\x01\x00\x02\x02\x46"), webhook.FaultTLS, "protocol version"},
		{"an SSL hello", true, cut("\x80\x2e\x01\x00\x02" + strings.Repeat("\x00", 41)), webhook.FaultTLS, ""},
		{"zeros by TLS", true, cut(strings.Repeat("\x00", 40)), webhook.FaultTLS, ""},
		{"a binary PROXY preamble ahead of TLS", true, write("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + strings.Repeat("\x01", 12)), webhook.FaultProxy, ""},
		{"plain HTTP", true, write(last), webhook.FaultPlain, "HTTP request to an HTTPS server"},
		{"a PROXY preamble ahead of TLS", true, write("PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"), webhook.FaultProxy, ""},
		{"no HTTP by TLS", true, secured(&tls.Config{InsecureSkipVerify: true}, write("hello\r\n\r\n")), webhook.FaultRequest, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			l = webhook.Watch(l, tt.encrypted)
			if tt.encrypted {
				l = tls.NewListener(l, config)
			}
			var log synced
			seen := make(chan webhook.ConnectionFault, 10)
			server := webhook.NewServer(quiet(t), webhook.ServerOptions{
				Log: slog.New(slog.NewJSONHandler(&log, nil)), Observe: func(f webhook.ConnectionFault) { seen <- f },
			})
			closed := make(chan struct{}, 1)
			then := server.ConnState
			server.ConnState = func(c net.Conn, state http.ConnState) {
				if then(c, state); state == http.StateClosed {
					closed <- struct{}{}
				}
			}
			go func() { _ = server.Serve(l) }()
			defer server.Close()
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			tt.do(c)
			_ = c.Close()
			<-closed
			close(seen)
			var got, want []webhook.ConnectionFault
			for f := range seen {
				got = append(got, f)
			}
			if tt.fault != "" {
				want = append(want, tt.fault)
			}
			if !slices.Equal(got, want) {
				t.Errorf("observed %q, want %q", got, want)
			}
			lines := strings.Count(log.text(), "\n")
			if lines != len(want) || lines > 0 && (!strings.Contains(log.text(), `"fault":"`+string(tt.fault)+`","remote":"127.0.0.1:`) || !strings.Contains(log.text(), tt.logged)) {
				t.Errorf("logged %s", log.text())
			}
			if tt.fault != "" && !slices.Contains(webhook.ConnectionFaults(), tt.fault) {
				t.Errorf("%q is not among the faults", tt.fault)
			}
		})
	}
}

// An idle connection stays open for longer than load balancers keep theirs.
func TestIdleTimeoutExceedsLoadBalancers(t *testing.T) {
	if s := webhook.NewServer(nil, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler)}); s.IdleTimeout <= 10*time.Minute {
		t.Errorf("%v unless set", s.IdleTimeout)
	}
	if s := webhook.NewServer(nil, webhook.ServerOptions{Log: slog.New(slog.DiscardHandler), IdleTimeout: time.Minute}); s.IdleTimeout != time.Minute {
		t.Errorf("%v where it is set", s.IdleTimeout)
	}
}
