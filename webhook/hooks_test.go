package webhook_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/closeouthq/closeout/webhook"
)

// A program's own endpoints are below HooksPath, have the listener's limit for bodies, and
// change nothing for callbacks.
func TestHooks(t *testing.T) {
	b := newBundle(t, started, func(o *webhook.Options) {
		hooks := http.NewServeMux()
		hooks.HandleFunc("POST "+webhook.HooksPath+"/transcripts/{session}", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			fmt.Fprint(w, r.PathValue("session"), " ", len(body))
		})
		o.Hooks = hooks
	})
	tests := []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/hooks/transcripts/7", "text", 200, "7 4"},
		{"POST", "/hooks/transcripts/7", strings.Repeat("x", webhook.MaxBody+1), 413, ""},
		{"GET", "/hooks/transcripts/7", "", 405, ""},
		{"POST", "/hooks/others", "", 404, ""},
		{"POST", "/transcripts/7", "", 404, `"title":"Not Found"`},
	}
	for _, tt := range tests {
		if w := b.do(tt.method, tt.path, "text/plain", tt.body); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.want)
		}
	}
	if b.taken.Load() != 0 {
		t.Error("one was received as a callback")
	}
}

// A test of hooks needs no other options.
func TestRouterNeedsNoOptions(t *testing.T) {
	router := webhook.Router(webhook.Options{Hooks: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})})
	for path, want := range map[string]int{webhook.HooksPath + "/done": http.StatusOK, "/nowhere": http.StatusNotFound, webhook.Path: http.StatusUnauthorized} {
		body := strings.NewReader(`{"event":"room_close","appid":1,"timestamp":1499676989,"nonce":"350176","signature":"signature"}`)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, body))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}
