package activities_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/closeouthq/closeout/activities"
)

// The step billing doesn't read the API's answer. These tests do.
func TestEndpointAnswers(t *testing.T) {
	tests := []struct {
		name, answer string
		status       int
		want         string // in the error
		blocks       bool
	}{
		{"decoded", `{"id": "c-1"}`, 201, "", false},
		{"not JSON", `<html>`, 200, `read the answer of the wallet: 200 OK: <html>`, false},
		{"nothing", ``, 204, "read the answer of the wallet: 204 No Content", false},
		// The API may still be working on the first request.
		{"conflict", `{"id": "c-1"}`, 409, "the wallet failed: 409 Conflict", false},
		{"refused", "no\n money \n", 402, `the wallet refused it: 402 Payment Required: no money`, true},
		{"redirect", ``, 307, "the wallet failed: 307", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			posted := 0
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				posted++
				b, err := io.ReadAll(r.Body)
				if err != nil || string(b) != `{"amount":7}` || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "" {
					t.Errorf("posted %q, %v, error %v", b, r.Header, err)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.answer)
			}))
			defer api.Close()
			wallet := activities.Endpoint{Name: "the wallet", URL: api.URL}
			var charge struct{ ID string }
			err := wallet.Post(t.Context(), uuid.New(), map[string]int{"amount": 7}, &charge)
			if posted != 1 {
				t.Errorf("posted %d times", posted)
			}
			if tt.want == "" {
				if err != nil || charge.ID != "c-1" {
					t.Errorf("answer %+v, error %v", charge, err)
				}
				return
			}
			app := new(temporal.ApplicationError)
			blocks := errors.As(err, &app) && app.NonRetryable()
			if refusal := new(activities.Refusal); errors.As(err, &refusal) != tt.blocks || tt.blocks && (refusal.Status != tt.status || refusal.Body != "no money") {
				t.Errorf("refusal %+v", refusal)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || blocks != tt.blocks {
				t.Errorf("error %v, want %q; blocks %v", err, tt.want, blocks)
			}
		})
	}
}

func TestEndpointBlocksInvalidRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		url  string
		body any
	}{
		"an invalid URL":            {"://hunter2", nil},
		"no URL":                    {"", nil},
		"a body that can't be JSON": {"http://localhost", func() {}},
	} {
		t.Run(name, func(t *testing.T) {
			err := activities.Endpoint{Name: "the wallet", URL: tt.url}.Post(t.Context(), uuid.New(), tt.body, nil)
			app := new(temporal.ApplicationError)
			if !errors.As(err, &app) || !app.NonRetryable() || !strings.Contains(err.Error(), "the wallet") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestEndpointAtAPath(t *testing.T) {
	for base, want := range map[string]string{
		"https://wallet":           "https://wallet/charges",
		"https://wallet/v1":        "https://wallet/v1/charges",
		"https://wallet/v1/?key=k": "https://wallet/v1/charges?key=k",
		"://":                      "://",
	} {
		if got := (activities.Endpoint{URL: base}).At("charges").URL; got != want {
			t.Errorf("%s: %s, want %s", base, got, want)
		}
	}
}
