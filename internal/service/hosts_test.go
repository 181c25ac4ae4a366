package service

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// The admin listener answers requests for names of its own machine, and refuses a foreign name that
// resolves to its address.
func TestAdminListenerAnswersExpectedHosts(t *testing.T) {
	handler := expectedHosts("admin.example.com:9090", slog.New(slog.DiscardHandler), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:9090": 200, "[::1]:9090": 200, "10.1.2.3": 200, "[fe80::1%25eth0]:9090": 200, "localhost:9090": 200, "LOCALHOST.:9090": 200, "webhook:9090": 200,
		"closeout-webhook.closeout.svc:9090": 200, "closeout-webhook.closeout.svc.cluster.local:9090": 200, "node-1.c.project.internal:9090": 200,
		"admin.example.com:9090": 200, "ADMIN.example.com": 200,
		"evil.example:9090": 421, "127.0.0.1.nip.io:9090": 421, "localhost.evil.example": 421, "svc.evil.example": 421, "": 421,
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: %d, want %d", host, w.Code, want)
		}
	}
}
