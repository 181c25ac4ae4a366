package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/closeouthq/closeout/internal/config"
	"github.com/closeouthq/closeout/internal/ledger"
	"github.com/closeouthq/closeout/internal/testenv"
	"github.com/closeouthq/closeout/workflows"
)

// crowded is a Temporal whose Namespace has room for a limited number of Search Attributes.
type crowded struct {
	workflowservice.UnimplementedWorkflowServiceServer
	operatorservice.UnimplementedOperatorServiceServer
	namespace error

	mu    sync.Mutex
	room  int
	names []string
	asked int // number of AddSearchAttributes requests
}

func (c *crowded) DescribeNamespace(context.Context, *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	return &workflowservice.DescribeNamespaceResponse{}, c.namespace
}

func (c *crowded) ListSearchAttributes(context.Context, *operatorservice.ListSearchAttributesRequest) (*operatorservice.ListSearchAttributesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := map[string]enums.IndexedValueType{}
	for _, key := range workflows.SearchAttributes() {
		if slices.Contains(c.names, key.GetName()) {
			there[key.GetName()] = key.GetValueType()
		}
	}
	return &operatorservice.ListSearchAttributesResponse{CustomAttributes: there}, nil
}

func (c *crowded) AddSearchAttributes(_ context.Context, r *operatorservice.AddSearchAttributesRequest) (*operatorservice.AddSearchAttributesResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if len(c.names)+len(r.GetSearchAttributes()) > c.room {
		return nil, serviceerror.ToStatus(serviceerror.NewInvalidArgument("cannot have more than 10 search attribute of type Keyword.")).Err()
	}
	for name := range r.GetSearchAttributes() {
		c.names = append(c.names, name)
	}
	return &operatorservice.AddSearchAttributesResponse{}, nil
}

// A TLS connection that no retry can establish ends setup.
func TestSetupEndsIfTLSIsImpossible(t *testing.T) {
	certificate, key := testenv.NewAuthority(t).Issue(t, testenv.For("127.0.0.1", time.Hour))
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{
		"does not look like a TLS handshake": serveTemporal(t, &crowded{}),
		"signed by unknown authority":        serveTemporal(t, &crowded{}, grpc.Creds(credentials.NewServerTLSFromCert(&pair))),
	} {
		c := &config.Config{DatabaseURL: "sqlite:" + filepath.Join(t.TempDir(), "ledger.db"), TaskQueue: "closeout"}
		c.Temporal.HostPort, c.Temporal.Namespace, c.Temporal.ConnectionOptions.TLS = address, "default", &tls.Config{}
		if err := Setup(t.Context(), c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), name) { // retries would never end
			t.Errorf("%s: %v", name, err)
		}
	}
}

func serveTemporal(t *testing.T, s interface {
	workflowservice.WorkflowServiceServer
	operatorservice.OperatorServiceServer
}, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	workflowservice.RegisterWorkflowServiceServer(server, s)
	operatorservice.RegisterOperatorServiceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// A failure that no retry can change ends setup at once, with a hint. Everything else is set up
// nevertheless.
func TestSetupContinuesAfterAFailure(t *testing.T) {
	total := len(workflows.SearchAttributes())
	tests := []struct {
		name     string
		temporal *crowded
		want     []string
		names    int
		asked    int // all at once, then one by one
	}{
		{"no room for a search attribute", &crowded{room: 0}, []string{"RoomSessionId", "cannot have more than 10", "temporal operator search-attribute remove", "TEMPORAL_NAMESPACE"}, 0, 1 + total},
		{"room for all but one", &crowded{room: total - 1}, []string{"cannot have more than 10"}, total - 1, 1 + total},
		{"not allowed", &crowded{namespace: status.Error(codes.PermissionDenied, "not yours")}, []string{"set up the namespace", "not yours"}, 0, 0},
		{"not known", &crowded{namespace: status.Error(codes.Unauthenticated, "who are you")}, []string{"set up the namespace", "who are you"}, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &config.Config{DatabaseURL: "sqlite:" + filepath.Join(t.TempDir(), "ledger.db"), TaskQueue: "closeout", ReconcileEvery: time.Minute}
			c.Temporal.HostPort, c.Temporal.Namespace = serveTemporal(t, tt.temporal), "default"
			err := Setup(t.Context(), c, slog.New(slog.DiscardHandler)) // retries would never end
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
			tt.temporal.mu.Lock()
			defer tt.temporal.mu.Unlock()
			if len(tt.temporal.names) != tt.names {
				t.Errorf("%d search attributes, want %d", len(tt.temporal.names), tt.names)
			}
			if tt.temporal.asked != tt.asked {
				t.Errorf("%d requests to add search attributes, want %d", tt.temporal.asked, tt.asked)
			}
			books, err := ledger.Open(c.DatabaseURL)
			if err != nil {
				t.Fatal(err)
			}
			defer books.Close()
			if err := books.Check(t.Context()); err != nil {
				t.Errorf("the ledger: %v", err)
			}
		})
	}
}

// A store's answer that no retry can change ends setup with a hint.
func TestRefusedFeatureIsNotTriedAgain(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	for _, tt := range []struct {
		status int
		header map[string]string
		want   string
	}{
		{http.StatusMovedPermanently, map[string]string{"X-Amz-Bucket-Region": "eu-central-1"}, "region=eu-central-1"},
		{http.StatusTemporaryRedirect, nil, "elsewhere"},
		{http.StatusForbidden, nil, "CLOSEOUT_MAKE_BUCKETS"},
		{http.StatusUnauthorized, nil, "credentials"},
		{http.StatusBadRequest, nil, "the URL names the right store"},
	} {
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, value := range tt.header {
				w.Header().Set(name, value)
			}
			w.WriteHeader(tt.status)
		}))
		err := setUpBucket(t.Context(), "CLOSEOUT_ARCHIVE_URL", "s3://b?region=us-east-1&use_path_style=true&endpoint="+store.URL, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "CLOSEOUT_ARCHIVE_URL") {
			t.Errorf("%d: %v, want %q", tt.status, err, tt.want)
		}
		store.Close()
	}
}

// peers records the names in client certificates.
type peers struct {
	crowded
	seen []string
}

func (p *peers) DescribeNamespace(ctx context.Context, _ *workflowservice.DescribeNamespaceRequest) (*workflowservice.DescribeNamespaceResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, _ := peer.FromContext(ctx)
	p.seen = append(p.seen, from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].DNSNames[0])
	return &workflowservice.DescribeNamespaceResponse{}, nil
}

// After a client certificate is replaced on disk, the next connection uses it. Readiness reports a
// certificate that expires soon.
func TestRenewedClientCertificateIsUsed(t *testing.T) {
	authority := testenv.NewAuthority(t)
	serverCert, serverKey := authority.Issue(t, testenv.For("temporal.example.com", time.Hour))
	firstCert, firstKey := authority.Issue(t, testenv.For("first", time.Hour))
	secondCert, secondKey := authority.Issue(t, testenv.For("second", 30*24*time.Hour))
	ca, err := os.ReadFile(authority.Cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(serverCert, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	p := &peers{}
	address := serveTemporal(t, p, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert})))

	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	copyTo := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyTo(firstCert, cert)
	copyTo(firstKey, key)
	for name, value := range map[string]string{"ADDRESS": address, "TLS_SERVER_NAME": "temporal.example.com", "TLS_SERVER_CA_CERT_PATH": authority.Cert, "TLS_CLIENT_CERT_PATH": cert, "TLS_CLIENT_KEY_PATH": key} {
		t.Setenv("TEMPORAL_"+name, value)
	}
	c, err := config.Load(func(string) (string, bool) { return "", false }, false)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		t.Helper()
		temporal, err := Dial(c, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer temporal.Close()
		if _, err := temporal.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{}, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	expiry := func() error {
		_, err := askCertificates(within, c).Get(t.Context())
		return err
	}
	ask()
	if err := expiry(); err == nil || !strings.HasPrefix(err.Error(), "TEMPORAL_TLS_CLIENT_CERT_PATH: the certificate for Temporal expires at ") {
		t.Errorf("of one that lasts an hour: %v", err)
	}
	copyTo(secondCert, cert)
	copyTo(secondKey, key)
	ask() // with the settings read before
	if err := expiry(); err != nil {
		t.Error(err)
	}
	if want := []string{"first", "second"}; !slices.Equal(p.seen, want) {
		t.Errorf("shown %v, want %v", p.seen, want)
	}
}
