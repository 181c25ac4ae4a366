package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
)

// fake takes the place of services without a URL, in this process. As a service should,
// it acts once for each Idempotency-Key and repeats its first answer.
type fake struct {
	mu      sync.Mutex
	answers map[string]string
}

// RoundTrip implements [http.RoundTripper].
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	if _, again := f.answers[key]; !again {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if f.answers == nil {
			f.answers = map[string]string{}
		}
		f.answers[key] = fmt.Sprintf(`{"url": "https://fake.example.com%s/%d"}`, r.URL.Path, len(f.answers)+1)
		slog.Info("fake service", "path", r.URL.Path, "body", strings.ReplaceAll(string(body), `"`, "")) // the log would escape quotes
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(strings.NewReader(f.answers[key])), Request: r}, nil
}
