package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// fakeAPI is a transcription API in this process. It keeps its jobs in memory, and does
// not read the recordings.
type fakeAPI struct {
	later func(func()) // schedules a call back, and each retry

	mu   sync.Mutex
	jobs map[string]bool // by Idempotency-Key
}

// RoundTrip implements [http.RoundTripper] without a network.
func (f *fakeAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w.Result(), nil
}

// ServeHTTP implements [http.Handler].
func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := r.Header.Get("Idempotency-Key")
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || len(key) < 8 {
		http.Error(w, "want an order and an Idempotency-Key", http.StatusBadRequest)
		return
	}
	id := "transcript-" + key[:8]
	if !f.jobs[key] {
		if f.jobs == nil {
			f.jobs = map[string]bool{}
		}
		f.jobs[key] = true
		slog.Info("fake transcription API: ordered", "id", id, "manifest", o.Manifest)
		report, _ := json.Marshal(Transcript{ID: id, Words: 42})
		f.later(func() { f.callBack(o.CallbackURL, id, report) })
	}
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(map[string]string{"id": id})
}

// callBack posts the report, and again until the answer is final.
func (f *fakeAPI) callBack(address, id string, report []byte) {
	answer := "none" // not the error, which contains the token
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Post(address, "application/json", bytes.NewReader(report))
	if err == nil {
		_ = resp.Body.Close()
		answer = resp.Status
	}
	slog.Info("fake transcription API: called back", "id", id, "answer", answer)
	if err != nil || resp.StatusCode >= 500 {
		f.later(func() { f.callBack(address, id, report) })
	}
}
